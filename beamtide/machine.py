"""The interface of a core: events in, effects out, time as an argument.

A core never acts. It is told what happened (`Heard` a message, or a `Tick` when time passed) and answers with what should
be done about it; the pump does it, in this order: everything to keep is committed to disk (one commit for all events that
were waiting), and only then are messages sent and calls made. So whatever a core answers to a peer is on disk before the peer
reads it.

Events and effects are structs of msgspec because a service makes a dozen of them per task: a frozen dataclass costs 1 us each.

Clock policy: `now` is the monotonic clock of the process in seconds; a core never reads one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec
from numpy.typing import NDArray

from beamtide.messages.base import Handle, Message, Seconds

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Parts: TypeAlias = tuple[bytes | memoryview, ...]
"""One block of bytes in pieces, so that large arrays are not copied to join them. The pieces must not change any more."""
Peer: TypeAlias = bytes
"""The sender or receiver of a message: opaque for a peer that connected to us, `link(name)` for one we connect to."""


def link(name: str) -> Peer:
    """Return the peer behind a configured outgoing link, for example `link("distributor")`."""
    return b">" + name.encode()


class Heard(msgspec.Struct, frozen=True):
    """A message arrived. An answer quotes `id`, the sender's message id; `reply_to` is the id that it answers (0 = none)."""

    peer: Peer
    message: Message
    id: int = 0
    reply_to: int = 0
    arrays: Arrays = msgspec.field(default_factory=dict)


class Tick(msgspec.Struct, frozen=True):
    """Time passed; nothing else happened. The first event after a start is a `Tick`."""


class Unreachable(msgspec.Struct, frozen=True):
    """A message to this peer could not be sent: it is gone, or it does not read."""

    peer: Peer


class Returned(msgspec.Struct, frozen=True):
    """Base of what the `Call` of a core brought back."""


Event: TypeAlias = Heard | Tick | Unreachable | Returned


class Send(msgspec.Struct, frozen=True):
    """Send a message; `reply_to` quotes the id of the request that it answers.

    `id` is what an answer quotes, for a core that must know which of its questions was answered (0: the pump numbers it).
    """

    peer: Peer
    message: Message
    reply_to: int = 0
    arrays: Arrays = msgspec.field(default_factory=dict)
    id: int = 0


class Keep(msgspec.Struct, frozen=True):
    """Write a row to the spool (insert or replace) before anything of this batch is sent."""

    table: str
    key: str
    body: bytes | Parts | Handle
    """A `Handle` keeps what another component of this host has stored, without a copy."""


class Forget(msgspec.Struct, frozen=True):
    """Delete a row from the spool before anything of this batch is sent."""

    table: str
    key: str


class WakeAt(msgspec.Struct, frozen=True):
    """Send a `Tick` not before `deadline`; a newer `WakeAt` of the same batch does not cancel an earlier one."""

    deadline: Seconds


class Call(msgspec.Struct, frozen=True):
    """Base of what only the shell of this core can do, such as a call to a batch system: after the commit, as `Send`."""


Effect: TypeAlias = Send | Keep | Forget | WakeAt | Call


class Shelf(Protocol):
    """What a core may read from its own spool: the rows it keeps, also those of the present batch, and whether there is room."""

    def read(self, table: str, key: str) -> bytes:
        """Return one row; KeyError if there is none."""
        ...

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Return all rows of a table as (key, body), ordered by key; a core calls it once, when it is made."""
        ...

    def handle(self, table: str, key: str) -> Handle | None:
        """Return where the body of a row lies, for another component of this host; None if it can only be sent as bytes."""
        ...

    def borrow(self, handle: Handle) -> bytes:
        """Return the payload that another component has stored; KeyError if it is not on this host, or deleted."""
        ...

    def room(self, size: int) -> str:
        """Return why `size` bytes of new work cannot be kept now, in one sentence; "" if they can.

        Only new work asks. Work that was accepted may always finish: it uses the reserve.
        """
        ...


class Machine(Protocol):
    """A core that the pump can drive."""

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        ...

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        ...

    def why(self) -> str:
        """Return why work waits, in one sentence; "" while work proceeds or there is none."""
        ...

    def check(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        ...
