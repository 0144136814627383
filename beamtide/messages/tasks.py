"""Messages about tasks: submitted to the distributor, pulled by a buffer, leased to a worker, closed by a verdict.

A task is one pipeline, one scan, and a contiguous range of acquisition indexes. Its id is the content it stands for (scan,
pipeline, settings, range), so submitting it twice changes nothing. The attempt number of a lease is its fencing token: a message
with an older one is answered `Stale` and changes nothing.
"""

from typing import Literal

import msgspec

from beamtide.messages.base import Digest, Message, PipelineName, ScanId, TaskId
from beamtide.messages.scaling import StartStages

Cause = Literal["fault", "infra", "handback"]
"""Why a lease ended without a result: the task raised, its worker was lost, or the worker gave it back unharmed."""
Outcome = Literal["result", "empty", "abandoned"]
"""The three verdicts; every task ends in exactly one."""


class FileStamp(msgspec.Struct, frozen=True, array_like=True):
    """What a file was when a task was made of it; `size` in bytes, `changed` its time of change in ns."""

    frames: int
    size: int
    changed: int
    inode: int

    @property
    def file(self) -> tuple[int, int, int]:
        """What stays when a file gets another name: its size, time of change and inode."""
        return self.size, self.changed, self.inode


class InputFile(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Frames `first <= frame < last` of one file; frame `first` belongs to the task's first index."""

    root: str
    path: str
    format: str
    first: int
    last: int
    options: dict[str, str] = {}
    was: FileStamp | None = None
    """What the file was when the task was made; None: nobody looked (before 0.2, or a task that somebody wrote)."""


class Need(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A fence in front of a task: indexes `[0, upto)` of another pipeline's results must be complete.

    `dataset` is the array that the worker fetches for its own indexes ("": none), `settings` the product meant ("": the newest).
    """

    pipeline: PipelineName
    dataset: str
    upto: int
    settings: Digest = Digest("")


class Task(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Work for one worker: indexes `start <= index < stop` of a scan.

    `void` says why there is nothing to compute (the frames never came): such a task is never leased; its verdict is "abandoned"
    with that reason, so that every index of a scan has a verdict. `generation` counts how often the task was retried after it had
    been abandoned; a higher one takes the place of a hole. `shape` and `snake` are those of the scan if the task is the whole
    scan: they tell the kernel line and column of each index.
    """

    id: TaskId
    scan: ScanId
    pipeline: PipelineName
    modality: str
    start: int
    stop: int
    inputs: tuple[InputFile, ...]
    settings: Digest
    needs: tuple[Need, ...] = ()
    priority: int = 0
    void: str = ""
    generation: int = 0
    shape: tuple[int, ...] = ()
    snake: bool = False


class Closed(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The verdict of one task, as the buffer tells it to the distributor."""

    task: TaskId
    outcome: Outcome
    reason: str = ""
    generation: int = 0


# --- clients and sources to the distributor ------------------------------------------------------------------------


class SubmitRequest(Message, frozen=True, kw_only=True):
    """Accept these tasks; answered `Ok` once they are on disk. Tasks already known are accepted silently."""

    tasks: tuple[Task, ...]


class FileOrigin(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where a file was put when tasks were made of it: the index of its frame 0, its first and last frame that tasks use."""

    path: str
    origin: int
    first: int
    last: int
    options: dict[str, str] = {}
    was: FileStamp | None = None


class OriginsRequest(Message, frozen=True, kw_only=True):
    """Where were the files of this product put, of which tasks were made? Answered `Origins`, page by page."""

    scan: ScanId
    pipeline: PipelineName
    settings: Digest
    page: int = 0


class Origins(Message, frozen=True, kw_only=True):
    """Answer to `OriginsRequest`; `more` says that there is a next page."""

    files: tuple[FileOrigin, ...]
    more: bool


class ForgetOriginsRequest(Message, frozen=True, kw_only=True):
    """No more tasks will be made of the files of this product; answered `Ok`."""

    scan: ScanId
    pipeline: PipelineName
    settings: Digest


class StatusRequest(Message, frozen=True, kw_only=True):
    """How many tasks of a scan ("" = of all scans) are open and done? Answered `TaskStatus`."""

    scan: ScanId = ScanId("")


class Tally(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Tasks of one scan in one pipeline, and the indexes that they cover."""

    scan: ScanId
    pipeline: PipelineName
    settings: Digest
    submitted: int
    results: int
    empty: int
    abandoned: int
    reasons: tuple[str, ...] = ()
    """Why tasks were abandoned, newest last, each naming its index range."""


class TaskStatus(Message, frozen=True, kw_only=True):
    """Answer to `StatusRequest` and `WatchTasksRequest`; `version` grows with every change."""

    tallies: tuple[Tally, ...]
    version: int


class WatchTasksRequest(Message, frozen=True, kw_only=True):
    """Answer with `TaskStatus` when its version is above `after`, or after `wait` seconds in any case."""

    scan: ScanId = ScanId("")
    after: int = -1
    wait: float = 10.0


class CancelRequest(Message, frozen=True, kw_only=True):
    """End all open tasks of a scan in one pipeline ("" = in all): verdict "abandoned", with this reason."""

    scan: ScanId
    pipeline: PipelineName = PipelineName("")
    reason: str = "cancelled"


# --- buffer to distributor: pull with a named durable cursor ------------------------------------------------------


class PullRequest(Message, frozen=True, kw_only=True):
    """Send journal entries of my pipeline after cursor `after`, at most `credit` of them; wait up to `wait` seconds.

    Also reports verdicts (`closed`). Asking for entries after `after` confirms that all up to it are on my disk.
    """

    pipeline: PipelineName
    after: int
    credit: int
    wait: float = 10.0
    closed: tuple[Closed, ...] = ()


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Journal entry: all tasks of this scan that stand before it in the journal are to be abandoned."""

    scan: ScanId
    reason: str


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One journal entry for a pipeline: a task or a cancellation, never both."""

    seq: int
    task: Task | None = None
    cancelled: Cancelled | None = None


class Pulled(Message, frozen=True, kw_only=True):
    """Answer to `PullRequest`: the next entries of the journal.

    `confirmed` names the verdicts of the request, which are on disk now (`generations`: which of each task). `ahead` shows
    cancellations further down the journal, so that no worker works on a cancelled scan until its backlog has been pulled.
    """

    pipeline: PipelineName
    entries: tuple[Entry, ...]
    confirmed: tuple[TaskId, ...] = ()
    ahead: tuple[Entry, ...] = ()
    generations: tuple[int, ...] = ()


# --- worker to buffer ----------------------------------------------------------------------------------------------


class LeaseRequest(Message, frozen=True, kw_only=True):
    """Give me one task; wait up to `wait` seconds for it. Answered `Lease` or `NoTask`. `stages`: how its job started."""

    worker: str
    job: str
    wait: float
    host: str = ""
    left: float = 0.0
    """Seconds for which the job may still run (0 = no limit): a task that needs longer is not leased to it."""
    stages: StartStages | None = None


class Lease(Message, frozen=True, kw_only=True):
    """The task is yours for `ttl` seconds from now, or from your last heartbeat."""

    task: Task
    attempt: int
    ttl: float


class NoTask(Message, frozen=True, kw_only=True):
    """No task came within the time you wanted to wait, or your job should leave.

    `linger`: stay until you were idle for so many seconds in all, if that is longer than you planned; `leave`: do not ask again:
    your job is not wanted any more, or has not enough time left for a task (`reason`).
    """

    linger: float = 0.0
    leave: bool = False
    reason: str = ""


class Beat(Message, frozen=True, kw_only=True):
    """I still work on it (`progress` from 0 to 1). Answered `Ok` or `Stale`."""

    worker: str
    task: TaskId
    attempt: int
    progress: float = 0.0


class TaskDone(Message, frozen=True, kw_only=True):
    """The sorter has stored the result, `seconds` after the lease (for the service times). Answered `Ok` or `Stale`."""

    worker: str
    task: TaskId
    attempt: int
    outcome: Outcome = "result"
    seconds: float = 0.0


class TaskFailed(Message, frozen=True, kw_only=True):
    """The attempt ended without a result. Answered `Ok` or `Stale`. `at`: Unix time, for display. `final`: never try again."""

    worker: str
    task: TaskId
    attempt: int
    cause: Cause
    reason: str
    trace: str = ""
    host: str = ""
    job: str = ""
    stderr: str = ""
    """The end of its standard error output, at most 8 KiB."""
    at: float = 0.0
    final: bool = False


class Stale(Message, frozen=True, kw_only=True):
    """Your attempt is over: another worker has the task, or it has its verdict. Stop working on it."""

    task: TaskId
    attempt: int
