"""The metadata server."""

from beamline_side.cores.metadata import MetadataMachine
from beamline_side.services.base import Service
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


def build(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make its core."""
    return MetadataMachine(store)


SERVICE = Service(kind="metadata", build=build, links=lambda name: {}, durable=True, data=True)
