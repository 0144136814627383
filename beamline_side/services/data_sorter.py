"""The data sorter of one pipeline."""

from beamline_side.cores.sorter.byte_budget import ResultRoom
from beamline_side.cores.sorter.sorter import SorterMachine
from beamline_side.services.base import Service, pipeline_of
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


def build(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make the core of "sorter.<pipeline>"."""
    budgets = deployment.site.budgets
    return SorterMachine(pipeline_of(name), store, ResultRoom(budgets.memory << 19, budgets.backlog << 20))


SERVICE = Service(kind="sorter", build=build, links=lambda name: {"sink": "sink"}, data=True)
