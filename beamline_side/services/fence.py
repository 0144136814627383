"""The fence service: says when a pipeline's results are complete up to an index."""

from beamline_side.cores.fence import FenceMachine
from beamline_side.services.base import Service
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


def build(deployment: Deployment, _: str, __: Store) -> Machine:
    """Make the core of the fence; it keeps nothing, its askers ask again."""
    return FenceMachine(frozenset(deployment.pipelines))


SERVICE = Service(kind="fence", build=build, links=lambda _: {"sink": "sink", "metadata": "metadata"}, durable=False, data=True)
