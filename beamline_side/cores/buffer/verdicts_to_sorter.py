"""Abandoned verdicts on their way to the sorter, so that it never waits for an index in vain.

Theory: a verdict is a row of the spool until the sorter answers `Ok(note=task id)`. A few are sent at a time; one without an
answer is sent again, which is harmless: the sorter keeps the first verdict of a task's generation. The verdict of a later
generation (a retry that failed again) replaces the one before; a late answer to the earlier one may remove it, which loses only
the newer reason. A task that is retried will get another verdict: the one before need not be sent any more.

Clock policy: `now` is the caller's monotonic clock. Invariant: every row is either unsent or under way.
"""

from collections import deque
from dataclasses import dataclass, field

from beamtide import codec
from beamtide.machine import Effect, Forget, Keep, Send, Shelf, link
from beamtide.messages.base import Ok, Refused, Seconds, TaskId
from beamtide.messages.results import StoreRequest
from beamtide.messages.tasks import Task

TABLE = "outbox"
WINDOW = 64
PATIENCE = 5.0


@dataclass(slots=True)
class VerdictsToSorter:
    """Abandoned verdicts that the sorter has not confirmed."""

    shelf: Shelf
    _unsent: deque[TaskId] = field(default_factory=deque)
    _under_way: dict[TaskId, float] = field(default_factory=dict)
    _fresh: dict[TaskId, StoreRequest] = field(default_factory=dict)
    _complaint: str = ""

    def __post_init__(self) -> None:
        self._unsent.extend(TaskId(key) for key, _ in self.shelf.rows(TABLE))

    def add(self, task: Task, attempt: int, reason: str) -> list[Effect]:
        """Take a verdict."""
        request = StoreRequest(task=task, attempt=attempt, outcome="abandoned", reason=reason)
        self._under_way.pop(task.id, None)
        if not (task.generation and task.id in self._unsent):
            self._unsent.append(task.id)
        self._fresh[task.id] = request
        return [Keep(TABLE, task.id, codec.pack(request))]

    def due(self, now: Seconds) -> list[Effect]:
        """Send what should be under way."""
        while self._under_way and next(iter(self._under_way.values())) <= now:
            self._unsent.append(self._pop_oldest())
        effects: list[Effect] = []
        while self._unsent and len(self._under_way) < WINDOW:
            task_id = self._unsent.popleft()
            self._under_way[task_id] = now + PATIENCE
            fresh = self._fresh.get(task_id)
            effects.append(Send(link("sorter"), fresh or codec.unpack(self.shelf.read(TABLE, task_id)).message))
        self._fresh.clear()  # with the next event the spool has them
        return effects

    def heard(self, answer: Ok | Refused) -> list[Effect]:
        """Handle the sorter's answer."""
        if isinstance(answer, Refused):
            self._complaint = answer.reason
            return []
        return self.forget(TaskId(answer.note))

    def generation(self, task_id: TaskId) -> int | None:
        """Return the generation of the verdict of a task that waits here; None if none does."""
        if task_id not in self._under_way and task_id not in self._unsent:
            return None
        request = codec.unpack(self.shelf.read(TABLE, task_id)).message
        assert isinstance(request, StoreRequest)
        return request.task.generation

    def forget(self, task_id: TaskId) -> list[Effect]:
        """Remove a verdict: the sorter has it, or it does not count any more."""
        if self._under_way.pop(task_id, None) is None:
            if task_id not in self._unsent:
                return []
            self._unsent.remove(task_id)
        self._complaint = ""
        return [Forget(TABLE, task_id)]

    def unreachable(self, now: Seconds) -> None:
        """Send all again in a moment: the sorter does not answer."""
        self._under_way = dict.fromkeys(self._under_way, now + 1.0)

    def wake(self) -> float | None:
        """Return when something should be sent again."""
        return next(iter(self._under_way.values()), None)

    def __len__(self) -> int:
        return len(self._unsent) + len(self._under_way)

    def why(self) -> str:
        """Return why the sorter does not take verdicts."""
        return f"the sorter refuses {len(self)} abandoned verdicts: {self._complaint}" if self._complaint and len(self) else ""

    def _pop_oldest(self) -> TaskId:
        task_id = next(iter(self._under_way))
        del self._under_way[task_id]
        return task_id
