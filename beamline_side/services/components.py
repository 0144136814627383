"""The table of our components that the pump drives: for each kind its core, the links it has, and what it keeps.

Each builder imports its own core, so that a process loads only that one.
"""

from collections.abc import Mapping

from beamtide.component.heartbeat import card_of
from beamtide.component.service import Service, pipeline_of
from beamtide.config.models import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store

QUEUED = 1000
"""Bytes of memory that a waiting task may take; it takes some 350."""


def _buffer(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make the core of "buffer.<pipeline>"."""
    from beamline_side.cores.buffer.buffer import BufferMachine

    site = deployment.site
    return BufferMachine(deployment.pipelines[pipeline_of(name)], site.leases, store, (site.budgets.memory << 20) // QUEUED)


def _sorter(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make the core of "sorter.<pipeline>"."""
    from beamline_side.cores.sorter.byte_budget import ByteBudget
    from beamline_side.cores.sorter.sorter import SorterMachine

    budgets = deployment.site.budgets
    return SorterMachine(pipeline_of(name), store, ByteBudget(budgets.memory << 19, budgets.backlog << 20))


def _distributor(deployment: Deployment, _: str, store: Store) -> Machine:
    """Make the core of the one entry for tasks."""
    from beamline_side.cores.distributor.distributor import DistributorMachine

    modalities = {name: pipeline.modality for name, pipeline in deployment.pipelines.items()}
    return DistributorMachine(modalities, store, deployment.site.budgets.backlog << 20)


def _sink(deployment: Deployment, _: str, store: Store) -> Machine:
    """Make the core of the sink, with previews."""
    from beamline_side.cores.sink.previews import SinkWithPreviews
    from beamline_side.cores.sink.sink import SinkMachine

    return SinkWithPreviews(SinkMachine(store, deployment.site.budgets.results << 20))


def _fence(deployment: Deployment, _: str, __: Store) -> Machine:
    """Make the core of the fence; it keeps nothing, its askers ask again."""
    from beamline_side.cores.fence import FenceMachine

    return FenceMachine(frozenset(deployment.pipelines))


def _metadata(_: Deployment, __: str, store: Store) -> Machine:
    """Make the core of the metadata server."""
    from beamline_side.cores.metadata import MetadataMachine

    return MetadataMachine(store)


def _topology(deployment: Deployment, name: str, _: Store) -> Machine:
    """Make the core of the topology manager."""
    from beamline_side.cores.topology import TopologyMachine

    return TopologyMachine(card_of(deployment, name))


SERVICES: Mapping[str, Service] = {
    "topology": Service(_topology, durable=False),
    "metadata": Service(_metadata, data=True),
    "distributor": Service(_distributor),
    "sink": Service(_sink, data=True),
    "fence": Service(_fence, ("sink", "metadata"), durable=False, data=True),
    "buffer": Service(_buffer, ("distributor", "fence", "sorter")),
    "sorter": Service(_sorter, ("sink",), data=True),
}
