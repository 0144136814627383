"""An open task as the spool keeps it, and its two changes: it is granted to a worker, or it gets its verdict."""

from typing import TypeAlias

import msgspec

from beamtide.machine import Forget, Keep
from beamtide.messages.dead_letters import DeadLetter
from beamtide.messages.tasks import Cause, Outcome, Task

TABLE = "tasks"
GUILTY = 3
"""Losses on so many different hosts count as a fault of the task."""


class OpenTask(msgspec.Struct, array_like=True):
    """An open task and its history: a row of the spool. `worker` is "" while it is not leased.

    `hosts` are those where it was lost since such losses counted as a fault last; the last seven fields describe the last attempt
    that failed or was lost.
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
    hopeless: bool = False
    """Whether its last report says that trying again cannot help."""

    def row(self) -> Keep:
        """Return the effect that keeps it."""
        return Keep(TABLE, self.task.id, _encode(self))

    def over(self, reason: str) -> "list[Change]":
        """Return its verdict "abandoned", before it was ever leased."""
        return [Forget(TABLE, self.task.id), Verdict(self.task, self.attempt, "abandoned", reason)]

    def letter(self, reason: str) -> DeadLetter:
        """Return its dead letter."""
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
    """When a lease began, and when it ends without a heartbeat."""

    granted: float
    expires: float


class Verdict(msgspec.Struct, frozen=True):
    """`task` has its verdict; with a `letter` if it was abandoned because it failed or was lost too often."""

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
