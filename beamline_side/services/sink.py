"""The sink."""

from beamline_side.cores.sink.previews import ShowingSink
from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.services.base import Service
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


def build(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make its core."""
    return ShowingSink(SinkMachine(store, deployment.site.budgets.results << 20))


SERVICE = Service(kind="sink", build=build, links=lambda name: {}, data=True)
