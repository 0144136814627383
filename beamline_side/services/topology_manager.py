"""The topology manager."""

from beamline_side.cores.topology import TopologyMachine
from beamline_side.services.base import Service
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.presence import card_of
from beamtide.pump import Store


def build(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make its core."""
    return TopologyMachine(card_of(deployment, name))


SERVICE = Service(kind="topology", build=build, links=lambda name: {}, durable=False)
