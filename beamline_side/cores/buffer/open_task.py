"""An open task as the spool keeps it, and what may happen to it: it is granted to a worker, or it gets its verdict."""

from typing import TypeAlias

import msgspec

from beamtide.machine import Forget, Keep
from beamtide.messages.dead_letters import DeadLetter
from beamtide.messages.tasks import Cause, Outcome, Task

TABLE = "tasks"
GUILTY = 3
"""Losses on so many different hosts count as a fault of the task."""


class OpenTask(msgspec.Struct, array_like=True):
    """An open task and what happened to it: what the spool keeps. `worker` is "" while nobody holds it.

    `hosts` lost it since the last time that such losses counted as a fault; the last six fields are what is left of the last
    attempt that ended badly.
    """

    task: Task
    seq: int
    attempt: int = 0
    faults: int = 0
    losses: int = 0
    worker: str = ""
    note: str = ""
    hosts: tuple[str, ...] = ()
    host: str = ""
    job: str = ""
    trace: str = ""
    stderr: str = ""
    at: float = 0.0

    def row(self) -> Keep:
        """Return the effect that keeps it."""
        return Keep(TABLE, self.task.id, _encode(self))

    def over(self, reason: str) -> "list[Change]":
        """Return what ends it before anyone held it."""
        return [Forget(TABLE, self.task.id), Verdict(self.task, self.attempt, "abandoned", reason)]

    def letter(self, reason: str) -> DeadLetter:
        """Return what is kept of it when it is given up."""
        return DeadLetter(
            task=self.task,
            seq=self.seq,
            reason=reason,
            faults=self.faults,
            losses=self.losses,
            attempts=self.attempt,
            worker=self.worker,
            host=self.host,
            job=self.job,
            trace=self.trace,
            stderr=self.stderr,
            at=self.at,
        )


class Grant(msgspec.Struct, frozen=True):
    """`worker` now holds `task`."""

    worker: str
    task: Task
    attempt: int


class Hold(msgspec.Struct):
    """When a lease began, and when it ends if nothing is heard."""

    granted: float
    expires: float


class Verdict(msgspec.Struct, frozen=True):
    """`task` is over; with a `letter` if it was given up because it failed or was lost too often."""

    task: Task
    attempt: int
    outcome: Outcome
    reason: str = ""
    letter: DeadLetter | None = None


Leased: TypeAlias = tuple[Keep, Grant] | tuple[()]
Change: TypeAlias = Keep | Forget | Grant | Verdict
_encode = msgspec.msgpack.Encoder().encode
open_task_of = msgspec.msgpack.Decoder(OpenTask).decode
"""Read a row back."""


def counts_as(open_task: OpenTask) -> Cause:
    """Return what a loss counts as: "infra", or a "fault" when it is one host too many."""
    open_task.hosts = tuple(dict.fromkeys((*open_task.hosts, open_task.host))) if open_task.host else open_task.hosts
    if len(open_task.hosts) < GUILTY:
        return "infra"
    open_task.note += f"; it was lost on {', '.join(open_task.hosts)}"
    open_task.hosts = ()
    return "fault"
