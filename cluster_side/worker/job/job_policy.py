"""The job policy: how many worker processes a job has, and when it ends.

Theory: a job has room for `slots` workers; each is a process that takes one task and exits. The job fills its slots until `tasks`
tasks were leased, until no worker finds a task any more, until the buffer says that the job gets no further task (busy workers
then finish theirs), or until it is told to leave. Then idle workers are stopped at once; busy ones get `GRACE` seconds to finish,
are then asked to hand their task back, and are killed if they do not.

Clock policy: `now` is the monotonic clock of the caller; it is only used for the end of a drain.
Invariants, asserted by `check()`: never more workers than slots; never more leases than tasks, so `tasks=1` means one task per
job; a worker that ends while it holds a lease, without having said how it ended, is reported exactly once; after `Exit` nothing.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from beamtide.messages.base import Seconds
from beamtide.messages.tasks import Cause

GRACE = 25.0
"""Inside the 30 s that batch systems leave between the warning and the kill."""
HAND_BACK = 3.0
CRASHES = 5
LastReport: TypeAlias = Literal["", "done", "failed", "notask", "leave", "stale", "silent"]
"""The last report of a worker: "leave" means that the buffer wants our job to end, "silent" that the services did not answer, ""
that it died without one."""
FINAL_REPORTS = frozenset(("done", "failed", "stale", "notask", "leave"))
"""After one of these a worker only exits, so its slot is free although the process still exists."""


@dataclass(frozen=True, slots=True)
class WorkerLeased:
    """A worker holds a task now."""

    number: int
    task: str
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """A worker process is gone; `death` says how it died ("" = it exited as it should), `stderr` what it wrote last.

    `guilty` says that its task is the cause: it took more memory than it may.
    """

    number: int
    said: LastReport
    death: str = ""
    stderr: str = ""
    guilty: bool = False


@dataclass(frozen=True, slots=True)
class SignalTerm:
    """We were told to leave."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Time passed; the first event of a job."""


Event: TypeAlias = WorkerLeased | WorkerEnded | SignalTerm | TimePassed


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Effect: fork a worker."""

    number: int


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Effect: ask a worker to leave (SIGTERM); if it holds a task it hands it back. `kill`: SIGKILL instead."""

    number: int
    kill: bool = False


@dataclass(frozen=True, slots=True)
class ReportLoss:
    """Effect: tell the buffer that this lease ended without a result."""

    task: str
    attempt: int
    worker: str
    cause: Cause
    reason: str
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """Effect: the job is over; `reason` is for people, "" when all is well."""

    code: int
    reason: str = ""


Effect: TypeAlias = StartWorker | StopWorker | ReportLoss | Exit


@dataclass(slots=True)
class JobPolicy:
    """The decisions of one job. `tasks` is the most it may lease (0 = no limit)."""

    slots: int
    tasks: int = 0
    leased: int = 0
    _held: dict[int, WorkerLeased | None] = field(default_factory=dict)
    _started: int = 0
    _crashes: int = 0
    _resting: bool = False
    _unwanted: bool = False
    _leave_by: float | None = None
    _asked: bool = False
    _trouble: str = ""
    _over: bool = False

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event at `now` and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case WorkerLeased(number) if number in self._held and self._held[number] is None:
                self._held[number] = event
                self.leased += 1
                self._crashes, self._resting = 0, False
                effects += [StopWorker(number)] if self._asked else []
            case WorkerEnded(number) if number in self._held:
                effects += self._ended(event)
            case SignalTerm() if self._leave_by is None:
                self._leave_by = now + GRACE
                effects += [StopWorker(number) for number in self.idle]
        return effects + self._hurry(now) + self._fill()

    @property
    def busy(self) -> list[int]:
        """Workers that hold a task."""
        return [number for number, lease in self._held.items() if lease is not None]

    @property
    def idle(self) -> list[int]:
        """Workers that wait for a task."""
        return [number for number, lease in self._held.items() if lease is None]

    @property
    def draining(self) -> bool:
        """Whether no further worker will be started."""
        return self._leave_by is not None or self._unwanted or bool(self._trouble)

    @property
    def wants_more(self) -> bool:
        """Whether a further worker will be started as soon as a slot is free."""
        return not self.draining and not self._resting and not (self.tasks and self.leased + len(self.idle) >= self.tasks)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert len(self._held) <= self.slots, "more workers than slots"
        assert not self.tasks or self.leased + len(self.idle) <= self.tasks, "more workers than tasks are left"
        assert not (self._over and self._held), "workers after the exit"

    def _ended(self, event: WorkerEnded) -> list[Effect]:
        lease = self._held.pop(event.number)
        if event.said == "silent" and not lease:
            self._trouble = "the services did not answer; is the beamline side running?"
        elif event.said == "leave":
            self._unwanted = True
        elif event.said == "notask":
            self._crashes, self._resting = 0, not self.busy
        elif lease is None and event.death and self._leave_by is None:
            self._crashes += 1
            if self._crashes == CRASHES:
                self._trouble = f"{CRASHES} workers in a row died before they had a task; the last {event.death}"
        if lease is None or event.said in ("done", "failed", "stale"):
            return []
        cause: Cause = "fault" if event.guilty else "handback" if self._asked else "infra"
        reason = f"worker {event.death or 'ended without a report'} while it worked on the task"
        return [ReportLoss(lease.task, lease.attempt, lease.worker, cause, reason, event.stderr)]

    def _hurry(self, now: Seconds) -> list[Effect]:
        if self._leave_by is None:
            return []
        if now >= self._leave_by + HAND_BACK:
            return [StopWorker(number, kill=True) for number in self._held]
        if now >= self._leave_by and not self._asked:
            self._asked = True
            return [StopWorker(number) for number in self._held]
        return []

    def _fill(self) -> list[Effect]:
        effects: list[Effect] = []
        while self.wants_more and len(self._held) < self.slots:
            self._started += 1
            self._held[self._started] = None
            effects.append(StartWorker(self._started))
        if not self._held and not self._over:
            self._over = True
            effects.append(Exit(1 if self._trouble else 0, self._trouble))
        return effects
