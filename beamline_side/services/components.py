"""The table of components that the pump drives: for each kind its core, the components it connects to, and what it keeps.

Each builder imports its own core, so that a process loads only that one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from beamtide.component.heartbeat import card_of
from beamtide.config.models import Budgets, Deployment
from beamtide.machine import Machine, Parts
from beamtide.messages.base import Handle
from beamtide.pump import Limits, Store

DATA_QUEUED = 16
"""Messages with arrays that may be under way to or from one peer. A sorter has up to eight of them under way to the sink, and
ZeroMQ learns only with every eighth message that messages were taken: with a lower limit, it would refuse some within the
credit."""


@dataclass(frozen=True, slots=True)
class Service:
    """A component that the pump drives.

    `build(deployment, name, store)` makes its core; `links(name)` says which links it has: name of the link -> component.
    """

    build: Callable[[Deployment, str, Store], Machine]
    links: Callable[[str], Mapping[str, str]]
    durable: bool = True
    data: bool = False
    """Whether arrays or files go through it; others take messages of 1 MiB at most."""

    def limits(self, budgets: Budgets) -> Limits:
        """Return its limits."""
        if not self.data:
            return Limits()
        return Limits(budgets.message << 20, DATA_QUEUED, budgets.memory << 16, unread=budgets.memory << 19)


def pipeline_of(name: str) -> str:
    """Return the pipeline in a component's name: "xrf" for "buffer.xrf"."""
    return name.split(".", 1)[1]


class NoStore:
    """The store of a service that keeps nothing: empty to read, an error to write to."""

    def read(self, table: str, key: str) -> bytes:
        """Nothing is here."""
        raise KeyError(f"{table}/{key}")

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Nothing is here."""
        return iter(())

    def handle(self, table: str, key: str) -> Handle | None:
        """Nothing is here."""
        return None

    def borrow(self, handle: Handle) -> bytes:
        """Nothing is here."""
        raise KeyError(handle.spool)

    def room(self, size: int) -> str:
        """Return "": nothing is kept, so there is always room."""
        return ""

    def progress(self) -> dict[str, float]:
        """Nothing to show."""
        return {}

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Refuse: this service has no spool."""
        raise AssertionError(f"a service without a spool wants to keep {table}/{key}")

    def forget(self, table: str, key: str) -> None:
        """Refuse, as `keep`."""
        raise AssertionError(f"a service without a spool wants to forget {table}/{key}")

    def commit(self) -> None:
        """Nothing to do."""


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


def _no_links(_: str) -> dict[str, str]:
    return {}


def _buffer_links(name: str) -> dict[str, str]:
    return {"distributor": "distributor", "fence": "fence", "sorter": f"sorter.{pipeline_of(name)}"}


SERVICES: Mapping[str, Service] = {
    "topology": Service(_topology, _no_links, durable=False),
    "metadata": Service(_metadata, _no_links, data=True),
    "distributor": Service(_distributor, _no_links),
    "sink": Service(_sink, _no_links, data=True),
    "fence": Service(_fence, lambda _: {"sink": "sink", "metadata": "metadata"}, durable=False, data=True),
    "buffer": Service(_buffer, _buffer_links),
    "sorter": Service(_sorter, lambda _: {"sink": "sink"}, data=True),
}
