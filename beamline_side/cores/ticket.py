"""An open task as the spool keeps it, and what may happen to it: it is granted to a worker, or it gets its verdict."""

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from beamtide.machine import Forget, Keep
from beamtide.messages.tasks import Outcome, Task

TABLE = "tasks"


class Ticket(msgspec.Struct, array_like=True):
    """An open task and what happened to it: what the spool keeps. `worker` is "" while nobody holds it."""

    task: Task
    seq: int
    attempt: int = 0
    faults: int = 0
    losses: int = 0
    worker: str = ""
    note: str = ""

    def row(self) -> Keep:
        """Return the effect that keeps it."""
        return Keep(TABLE, self.task.id, _encode(self))

    def over(self, reason: str) -> "list[Change]":
        """Return what ends it before anyone held it."""
        return [Forget(TABLE, self.task.id), Verdict(self.task, self.attempt, "abandoned", reason)]


@dataclass(frozen=True, slots=True)
class Grant:
    """`worker` now holds `task`."""

    worker: str
    task: Task
    attempt: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`task` is over."""

    task: Task
    attempt: int
    outcome: Outcome
    reason: str = ""


Change: TypeAlias = Keep | Forget | Grant | Verdict
_encode = msgspec.msgpack.Encoder().encode
ticket_of = msgspec.msgpack.Decoder(Ticket).decode
"""Read a row back."""
