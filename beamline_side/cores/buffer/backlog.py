"""The backlog: tasks that were never leased, in the order in which the buffer leases them.

Theory: to choose the next task only its sort key and its id are needed; its body lies in the spool and is read when the task is
leased. So a buffer that leases by priority, or the newest first, can sort its whole queue, at some 350 bytes of memory per task.
The bodies of the first `HOT` tasks stay in memory; a buffer that leases in the order of arrival needs no others. Tasks of a
cancelled scan are abandoned a few at a time; a row records the cancellation until that is done.

Clock policy: `now` is the time of leases. Invariants: every task here is a row of the spool without an attempt; a task is open or
cancelled, never both.
"""

import heapq
from collections import deque

import msgspec

from beamline_side.cores.buffer.open_task import TABLE, Change, OpenTask, open_task_of
from beamline_side.cores.buffer.orderings import Key, Ordering
from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.base import ScanId, Seconds, TaskId

HOT = 1000
AT_ONCE = 200
"""How many tasks of cancelled scans are abandoned per tick."""
CANCELLED = "doom"


class ArrivedTogether(msgspec.Struct):
    """Fields that tasks pulled together have in common."""

    scan: ScanId
    time: float


class CancelledScan(msgspec.Struct, frozen=True, array_like=True):
    """The tasks of a scan before a position in the journal are cancelled; kept as a row while some of them are open."""

    before: int
    reason: str


class Backlog:
    """The queue of one buffer."""

    def __init__(self, ordering: Ordering, shelf: Shelf) -> None:
        self._ordering, self._shelf = ordering, shelf
        self._queue: list[tuple[int, int, TaskId]] = []
        self._arrivals: dict[TaskId, ArrivedTogether] = {}
        self._hot: dict[TaskId, OpenTask] = {}
        self._latest = ArrivedTogether(ScanId(""), 0.0)
        self._restored: dict[ScanId, ArrivedTogether] = {}
        self._cancelled_tasks: deque[tuple[TaskId, str]] = deque()
        self._cancelled = {ScanId(key): msgspec.msgpack.decode(body, type=CancelledScan) for key, body in shelf.rows(CANCELLED)}

    def restore(self, open_task: OpenTask) -> None:
        """Restore a task from the spool after a restart; `begin` ends the restoring."""
        task = open_task.task
        cancelled = self._cancelled.get(task.scan)
        if cancelled is not None and open_task.seq < cancelled.before:
            self._cancelled_tasks.append((task.id, cancelled.reason))
            return
        if task.scan not in self._restored:
            self._restored[task.scan] = ArrivedTogether(task.scan, 0.0)
        self._arrivals[task.id] = self._restored[task.scan]
        self._queue.append((*self._ordering(task, open_task.seq), task.id))

    def begin(self, now: Seconds) -> None:
        """End the restoring at `now`; called before any other event."""
        heapq.heapify(self._queue)
        for arrival in self._restored.values():
            arrival.time = now
        self._restored.clear()

    def add(self, open_task: OpenTask, now: Seconds) -> list[Effect]:
        """Take a new task; one that is known already changes nothing."""
        task = open_task.task
        if task.id in self._arrivals:
            return []
        if self._latest.time != now or self._latest.scan != task.scan:
            self._latest = ArrivedTogether(task.scan, now)
        self._arrivals[task.id] = self._latest
        heapq.heappush(self._queue, (*self._ordering(task, open_task.seq), task.id))
        if len(self._hot) < HOT:
            self._hot[task.id] = open_task
        return [open_task.row()]

    def take(self, before: tuple[int, Key] | None) -> OpenTask | None:
        """Take out our first task, if it comes before the first of the lease table, whose sort key is `before`."""
        while self._queue and self._queue[0][2] not in self._arrivals:
            heapq.heappop(self._queue)
        if not self._queue or (before is not None and before < (1, self._queue[0][:2])):
            return None
        *_, task_id = heapq.heappop(self._queue)
        del self._arrivals[task_id]
        return self._open_task(task_id)

    def cancel(self, scan: ScanId, before: int, reason: str) -> list[Effect]:
        """Cancel the tasks of a scan whose position in the journal is before `before`."""
        found = [
            name
            for _, place, name in self._queue
            if abs(place) < before and name in self._arrivals and self._arrivals[name].scan == scan
        ]
        if not found:
            return []
        for name in found:
            del self._arrivals[name]
            self._cancelled_tasks.append((name, reason))
        self._cancelled[scan] = CancelledScan(before, reason)
        return [Keep(CANCELLED, scan, msgspec.msgpack.encode(self._cancelled[scan]))]

    def end_doomed(self) -> list[Change]:
        """Abandon some of the tasks of cancelled scans."""
        changes: list[Change] = []
        for _ in range(min(AT_ONCE, len(self._cancelled_tasks))):
            name, reason = self._cancelled_tasks.popleft()
            changes += self._open_task(name).over(reason)
        if self._cancelled and not self._cancelled_tasks:
            changes += [Forget(CANCELLED, scan) for scan in self._cancelled]
            self._cancelled.clear()
        return changes

    @property
    def ending(self) -> bool:
        """Whether `end_doomed` has something to do."""
        return bool(self._cancelled_tasks)

    def oldest_wait(self, now: Seconds) -> float:
        """Return for how long the oldest task has been waiting."""
        first = next(iter(self._arrivals.values()), None)
        return max(0.0, now - first.time) if first else 0.0

    def __len__(self) -> int:
        return len(self._arrivals)

    def __contains__(self, task: TaskId) -> bool:
        return task in self._arrivals

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert self._arrivals.keys() <= {name for *_, name in self._queue}, "a task will never be leased"
        assert not self._arrivals.keys() & {name for name, _ in self._cancelled_tasks}, "a cancelled task may be leased"

    def _open_task(self, name: TaskId) -> OpenTask:
        return self._hot.pop(name, None) or open_task_of(self._shelf.read(TABLE, name))
