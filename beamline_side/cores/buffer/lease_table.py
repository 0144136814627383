"""The lease table: which worker holds which task, and until when.

A task is ready, or resting after a failure, or leased to one worker; it ends in exactly one verdict. The attempt number of a
lease is its fencing token: it is on disk before the worker gets it, grows with every lease also over restarts, and a message with
another one changes nothing. How a lease ends decides what follows: a result closes the task; a *fault* (the task raised) makes it
rest 1, 2, 4, then 8 s; an *infra* loss (no heartbeat, dead worker) makes it ready at once; a *handback* does the same and is not
counted. Losses on three different hosts are not the fault of a host: together they count as a fault. After too many faults or
losses the task is abandoned, with the last reason and a dead letter.

Clock policy: `now` is the caller's monotonic clock in seconds, and never goes back. A late `expire` delays a retry but never
loses a task. After a restart every lease gets its full time again. All leases are equally long, so they end in the order of their
start or last heartbeat. Every operation is O(log n), except cancelling a scan, which looks at every task once.
Invariants: each task is in exactly one state; counters stay below their limits while it is open.
"""

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from beamline_side.cores.buffer.open_task import TABLE, Change, Grant, Hold, Leased, OpenTask, Verdict, counts_as
from beamline_side.cores.buffer.orderings import Key, Ordering
from beamtide.machine import Forget
from beamtide.messages.base import ScanId, Seconds, TaskId
from beamtide.messages.tasks import Cause, Outcome, Task, TaskFailed

REMEMBERED = 8192
"""How many ended attempts are remembered, to answer a repeated report as the first time."""
LONGEST_REST = 8.0
MOST_LEFT = 8192
"""Characters of a traceback, and of standard error output, that are kept."""


@dataclass(slots=True)
class LeaseTable:
    """The open tasks of one buffer."""

    ttl: float
    faults: int
    losses: int
    ordering: Ordering
    retried: int = 0
    _open_tasks: dict[TaskId, OpenTask] = field(default_factory=dict)
    _ready: dict[TaskId, float] = field(default_factory=dict)
    _queue: list[tuple[int, Key, TaskId]] = field(default_factory=list)
    _resting: list[tuple[float, TaskId]] = field(default_factory=list)
    _leased: OrderedDict[TaskId, Hold] = field(default_factory=OrderedDict)  # in the order in which they end
    _workers: dict[str, TaskId] = field(default_factory=dict)
    _restored: list[TaskId] = field(default_factory=list)
    _endings: OrderedDict[tuple[TaskId, int], bool] = field(default_factory=OrderedDict)

    def restore(self, open_task: OpenTask) -> None:
        """Restore a task from the spool after a restart; its lease gets its full time from the first event on."""
        self._open_tasks[open_task.task.id] = open_task
        self._restored.append(open_task.task.id)

    def submit(self, task: Task, seq: int, now: Seconds, attempt: int = 0) -> list[Change]:
        """Take a task into the queue, after so many attempts; a task that is known already is ignored."""
        if task.id in self._open_tasks:
            return []
        open_task = OpenTask(task, seq, attempt)
        self._open_tasks[open_task.task.id] = open_task
        self._enqueue(open_task, now)
        return [open_task.row()]

    def first(self) -> tuple[int, Key] | None:
        """Return the sort key of the task that would be leased next; None if none is ready."""
        while self._queue and self._queue[0][2] not in self._ready:
            heapq.heappop(self._queue)  # cancelled while it waited
        return self._queue[0][:2] if self._queue else None

    def expire(self, now: Seconds) -> list[Change]:
        """End the leases that have expired, and make tasks ready that have rested."""
        for task_id in self._restored:
            (self._hold if self._open_tasks[task_id].worker else self._enqueue)(self._open_tasks[task_id], now)
        self._restored.clear()
        while self._resting and self._resting[0][0] <= now:
            _, task_id = heapq.heappop(self._resting)
            if task_id in self._open_tasks:
                self._enqueue(self._open_tasks[task_id], now)
        changes: list[Change] = []
        while (ends := self._next_end()) is not None and ends <= now:
            changes += self._lost(self._open_tasks[next(iter(self._leased))], "infra", f"no heartbeat for {self.ttl:g} s", now)
        return changes

    def lease(self, worker: str, now: Seconds, host: str = "", job: str = "", open_task: OpenTask | None = None) -> Leased:
        """Lease a task to a worker of a host and job: `open_task`, which is ours from now on, or our first, if any is ready."""
        if open_task is None:
            if self.first() is None:
                return ()
            *_, task_id = heapq.heappop(self._queue)
            del self._ready[task_id]
            open_task = self._open_tasks[task_id]
        else:
            self._open_tasks[open_task.task.id] = open_task
        open_task.attempt += 1
        open_task.worker, open_task.host, open_task.job = worker, host, job
        self._hold(open_task, now)
        return open_task.row(), Grant(worker, open_task.task, open_task.attempt)

    def beat(self, task: TaskId, attempt: int, now: Seconds) -> bool:
        """Prolong a lease; False if it is over."""
        if not self.holds(task, attempt):
            return False
        self._leased[task].expires = now + self.ttl
        self._leased.move_to_end(task)
        return True

    def done(self, task: TaskId, attempt: int, outcome: Outcome) -> list[Change] | None:
        """Close a task whose result is stored; None if that attempt was over before."""
        if not self.holds(task, attempt):
            return [] if self._endings.get((task, attempt)) is True else None
        self._remember(task, attempt, closed=True)
        return self._close(self._open_tasks[task], outcome, "")

    def note(self, report: TaskFailed) -> None:
        """Note traceback and stderr of an attempt before it is ended; those of an earlier one stay if it has none."""
        if self.holds(report.task, report.attempt):
            open_task = self._open_tasks[report.task]
            open_task.trace, open_task.stderr = (
                report.trace[-MOST_LEFT:] or open_task.trace,
                report.stderr[-MOST_LEFT:] or open_task.stderr,
            )
            open_task.at, open_task.hopeless = report.at or open_task.at, report.final

    def failed(self, task: TaskId, attempt: int, cause: Cause, reason: str, now: Seconds) -> list[Change] | None:
        """End an attempt without a result; None if it was over before."""
        if not self.holds(task, attempt):
            return [] if self._endings.get((task, attempt)) is False else None
        self._remember(task, attempt, closed=False)
        return self._lost(self._open_tasks[task], cause, reason, now)

    def cancel(self, scan: ScanId, before: int, reason: str) -> list[Change]:
        """Abandon the open tasks of a scan before the position `before` in the journal, also those that are leased."""
        meant = [open_task for open_task in self._open_tasks.values() if open_task.task.scan == scan and open_task.seq < before]
        return [change for open_task in meant for change in self._close(open_task, "abandoned", reason)]

    def holds(self, task: TaskId, attempt: int) -> bool:
        """Whether this attempt is the current one."""
        return task in self._leased and self._open_tasks[task].attempt == attempt

    def knows(self, task: TaskId) -> bool:
        """Whether a task is open here."""
        return task in self._open_tasks

    def held_since(self, task: TaskId) -> float:
        """Return when the lease of a task began."""
        return self._leased[task].granted

    def lease_of(self, worker: str) -> Grant | None:
        """Return the lease that a worker holds, for a worker that asks again because it never received it."""
        open_task = self._open_tasks[self._workers[worker]] if worker in self._workers else None
        return Grant(worker, open_task.task, open_task.attempt) if open_task else None

    def wake(self) -> float | None:
        """Return when `expire` has something to do, if ever."""
        times = (self._next_end(), self._resting[0][0] if self._resting else None)
        return min((time for time in times if time is not None), default=None)

    @property
    def ready(self) -> int:
        """Tasks that can be leased now."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """Tasks that are not leased: ready, or resting."""
        return len(self._open_tasks) - len(self._leased)

    @property
    def leased(self) -> int:
        """Tasks that are leased."""
        return len(self._leased)

    def leased_by_job(self) -> dict[str, int]:
        """Return how many tasks each job holds."""
        return Counter(self._open_tasks[task].job for task in self._leased)

    def oldest_wait(self, now: Seconds) -> float:
        """Return for how long the first ready task has been ready."""
        return max(0.0, now - next(iter(self._ready.values()), now))

    def why(self, more: int) -> str:
        """Return why no task is leased, when `more` tasks wait in the backlog."""
        if self._leased:
            return ""
        if count := len(self._ready) + more:
            return f"{count} task{'s wait' if count > 1 else ' waits'} and no worker is there"
        return f"{self.waiting} failed tasks rest before their next attempt" if self.waiting else ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        resting = {task for _, task in self._resting if task in self._open_tasks}
        states = [set(self._ready), set(self._leased), resting, set(self._restored)]
        assert sum(map(len, states)) == len(self._open_tasks) == len(set().union(*states)), "a task is nowhere, or in two states"
        assert self._ready.keys() <= {task for *_, task in self._queue}, "a ready task will never be leased"
        ends = [hold.expires for hold in self._leased.values()]
        assert ends == sorted(ends), "a lease that ends late"
        assert set(self._workers.values()) == set(self._leased), "a worker and its lease do not know each other"
        assert all(open_task.faults < self.faults and open_task.losses < self.losses for open_task in self._open_tasks.values())

    def _enqueue(self, open_task: OpenTask, now: float, front: bool = False) -> None:
        self._ready[open_task.task.id] = now
        heapq.heappush(self._queue, (0 if front else 1, self.ordering(open_task.task, open_task.seq), open_task.task.id))

    def _hold(self, open_task: OpenTask, now: float) -> None:
        self._leased[open_task.task.id] = Hold(now, now + self.ttl)
        self._workers[open_task.worker] = open_task.task.id

    def _next_end(self) -> float | None:
        return next(iter(self._leased.values())).expires if self._leased else None

    def _lost(self, open_task: OpenTask, cause: Cause, reason: str, now: float) -> list[Change]:
        open_task.note = f"{open_task.worker}: {reason}"
        if open_task.hopeless:
            return self._close(open_task, "abandoned", open_task.note, dead=True)
        if cause == "infra":
            open_task.losses += 1
            cause = counts_as(open_task)
        open_task.faults += cause == "fault"
        if open_task.faults >= self.faults:
            return self._close(open_task, "abandoned", f"failed {open_task.faults} times, last with {open_task.note}", dead=True)
        if open_task.losses >= self.losses:
            return self._close(
                open_task, "abandoned", f"its worker was lost {open_task.losses} times, last {open_task.note}", dead=True
            )
        self.retried += cause != "handback"
        del self._leased[open_task.task.id], self._workers[open_task.worker]
        open_task.worker = ""
        if cause == "fault":
            rest = min(LONGEST_REST, 2.0 ** (open_task.faults - 1))
            heapq.heappush(self._resting, (now + rest, open_task.task.id))
        else:
            self._enqueue(open_task, now, front=True)
        return [open_task.row()]

    def _close(self, open_task: OpenTask, outcome: Outcome, reason: str, dead: bool = False) -> list[Change]:
        task_id = open_task.task.id
        letter = open_task.letter(reason) if dead else None
        del self._open_tasks[task_id]
        if self._leased.pop(task_id, None):
            del self._workers[open_task.worker]
        self._ready.pop(task_id, None)
        return [Forget(TABLE, task_id), Verdict(open_task.task, open_task.attempt, outcome, reason, letter)]

    def _remember(self, task: TaskId, attempt: int, closed: bool) -> None:
        self._endings[task, attempt] = closed
        if len(self._endings) > REMEMBERED:
            self._endings.popitem(last=False)
