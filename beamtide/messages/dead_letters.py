"""Dead letters: tasks that were abandoned because they failed or lost their workers too often, kept to inspect and retry them.

The buffer of a pipeline keeps them. A retry runs the task as its next `generation`; the result of a higher generation takes the
place of a hole in every component, and is announced as a correction.
"""

import msgspec

from beamtide.messages.base import Message, ScanId, TaskId
from beamtide.messages.tasks import Task


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A task that was abandoned, with the data of its last attempt. `seq` is its position in the pipeline's journal.

    `at` is Unix time in seconds as the worker reported it, for display only (0 = unknown).
    """

    task: Task
    seq: int
    reason: str
    faults: int = 0
    losses: int = 0
    attempts: int = 0
    worker: str = ""
    host: str = ""
    job: str = ""
    trace: str = ""
    stderr: str = ""
    at: float = 0.0


class DeadListRequest(Message, frozen=True, kw_only=True):
    """Which tasks are dead letters? Newest first, without the first `skip`. Answered `DeadLetters`.

    `task` names one task, which comes whole; a list ("" = all) comes without traceback and stderr. `scan` asks for one scan's.
    """

    task: TaskId = TaskId("")
    skip: int = 0
    scan: ScanId = ScanId("")


class DeadLetters(Message, frozen=True, kw_only=True):
    """Some dead letters, of `total`."""

    letters: tuple[DeadLetter, ...]
    total: int


class RetryRequest(Message, frozen=True, kw_only=True):
    """Retry these tasks; answered `Ok` once that is on disk. A task that is no dead letter (any more) is ignored."""

    tasks: tuple[TaskId, ...]


class DropRequest(Message, frozen=True, kw_only=True):
    """Delete these dead letters; their holes stay. Answered `Ok`."""

    tasks: tuple[TaskId, ...]
