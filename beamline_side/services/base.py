"""What a service is: a name, a core to build, and the components it connects to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from beamtide.config import Budgets, Deployment
from beamtide.machine import Machine, Parts
from beamtide.messages.base import Handle
from beamtide.pump import Limits, Store

DATA_QUEUED = 16
"""Messages with arrays that may be under way to or from one peer. A sorter has up to eight of them under way to the sink, and
ZeroMQ hears that a message was taken only with every eighth: with fewer, it would refuse some that have their credit."""


@dataclass(frozen=True, slots=True)
class Service:
    """A component that the pump drives.

    `build(deployment, name, store)` makes its core; `links(name)` says which links it has: name of the link -> component.
    """

    kind: str
    build: Callable[[Deployment, str, Store], Machine]
    links: Callable[[str], Mapping[str, str]]
    durable: bool = True
    data: bool = False
    """Whether arrays or files go through it; others take messages of 1 MiB at most."""

    def limits(self, budgets: Budgets) -> Limits:
        """Return what it takes in."""
        if not self.data:
            return Limits()
        return Limits(budgets.message << 20, DATA_QUEUED, budgets.memory << 16, lent=budgets.memory << 19)


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
        """There is room: nothing is kept."""
        return ""

    def progress(self) -> dict[str, float]:
        """Nothing to show."""
        return {}

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Refuse: the service was declared not to be durable."""
        raise AssertionError(f"a service without a spool wants to keep {table}/{key}")

    def forget(self, table: str, key: str) -> None:
        """Refuse, as `keep`."""
        raise AssertionError(f"a service without a spool wants to forget {table}/{key}")

    def commit(self) -> None:
        """Nothing to do."""
