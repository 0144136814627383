"""What a component is to its host: how to make its core, what it connects to, and what it keeps.

Our own components are such services, and so is a kind of component that another distribution brings: an entry point of the group
"beamtide.components" names a `Service`. The host gives each a process, a socket, a spool and a key, and lets the pump drive its
core; the topology manager shows its progress and its `why`. A core is written as ours are: see `beamtide.machine`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from beamtide.config.models import Budgets, Deployment
from beamtide.config.section import NoSettings
from beamtide.machine import Machine, Parts
from beamtide.messages.base import Handle
from beamtide.pump import Limits, Store

DATA_QUEUED = 16
"""Messages with arrays that may be under way to or from one peer. A sorter has up to eight of them under way to the sink, and
ZeroMQ hears that a message was taken only with every eighth: with fewer, it would refuse some that have their credit."""
Settings = TypeVar("Settings", bound=BaseModel)


def _any_site(_: Deployment, __: str) -> None:
    """Nothing about a site is wrong."""


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of component that the pump drives.

    `build(deployment, name, store)` makes the core of the component with this name. It may read files, and raises BadInput for
    what cannot be used. It loads what is heavy itself: other components read this, too.
    """

    build: Callable[[Deployment, str, Store], Machine]
    links: tuple[str, ...] = ()
    """The links it has: its core sends to `beamtide.machine.link(name)`. Each of ours leads to the component of that name, or to
    that of the same pipeline; those of a component of another distribution are named in its file."""
    durable: bool = True
    """Whether its core keeps rows on disk (`Keep`)."""
    data: bool = False
    """Whether arrays or files go through it; others take messages of 1 MiB at most."""
    settings: type[BaseModel] = NoSettings
    """What `settings` in its file may say."""
    check: Callable[[Deployment, str], None] = _any_site
    """Raises BadInput for a site that the component with this name cannot work in, before anything starts."""

    def limits(self, budgets: Budgets) -> Limits:
        """Return what it takes in."""
        if not self.data:
            return Limits()
        return Limits(budgets.message << 20, DATA_QUEUED, budgets.memory << 16, unread=budgets.memory << 19)


def links_of(deployment: Deployment, name: str, service: Service) -> dict[str, str]:
    """Return where the links of a component lead: name of the link -> component."""
    if name in deployment.added:
        return dict(deployment.added[name].links)
    known, pipeline = deployment.components(), name.partition(".")[2]
    return {link: beside if (beside := f"{link}.{pipeline}") in known else link for link in service.links}


def settings_of(deployment: Deployment, name: str, model: type[Settings]) -> Settings:
    """Return the settings of an added component, as its kind understands them; they were looked at before it started."""
    return model.model_validate(deployment.added[name].settings)


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
