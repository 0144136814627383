"""The task distributor service: the one entry for tasks."""

from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.services.base import Service
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


def build(deployment: Deployment, _: str, store: Store) -> Machine:
    """Make the core of the distributor."""
    modalities = {name: pipeline.modality for name, pipeline in deployment.pipelines.items()}
    return DistributorMachine(modalities, store, deployment.site.budgets.backlog << 20)


SERVICE = Service(kind="distributor", build=build, links=lambda _: {})
