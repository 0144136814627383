"""Tasks that wait for a fence: another pipeline's results must be complete up to some index first.

Theory: fences of one scan, pipeline and settings are reached in the order of their indexes, so only the lowest is asked for; an
answer "complete to k" frees every task up to k, and a broken fence breaks all higher ones. A task with several needs waits for
them one after the other.

Clock policy: `now` is the caller's monotonic clock; requests are sent again as `session.Poll` says.
Invariant: a fenced task waits in the queue of exactly one fence.
"""

import heapq
from dataclasses import dataclass, field

from beamline_side.cores.buffer.open_task import OpenTask
from beamtide.machine import Effect, Send, link
from beamtide.messages.base import Digest, PipelineName, ScanId, Seconds, TaskId
from beamtide.messages.fences import FenceBroken, FencePending, FenceReached, FenceRequest
from beamtide.messages.tasks import Need
from beamtide.session import Poll


@dataclass(slots=True)
class _FenceQueue:
    queue: list[tuple[int, int, TaskId, int]] = field(default_factory=list)
    poll: Poll = field(default_factory=Poll)
    asked: int = -1
    complete: int = 0


@dataclass(slots=True)
class FencedTasks:
    """The fenced tasks of one buffer."""

    _held: dict[TaskId, OpenTask] = field(default_factory=dict)
    _fences: dict[tuple[ScanId, PipelineName, Digest], _FenceQueue] = field(default_factory=dict)

    def hold(self, open_task: OpenTask) -> list[Effect]:
        """Hold a task until its needs are met; a task that is held already is ignored."""
        if open_task.task.id in self._held:
            return []
        self._queue(open_task, 0)
        return [open_task.row()]

    def _queue(self, open_task: OpenTask, position: int) -> None:
        """Let a task wait for its need at `position`."""
        need = open_task.task.needs[position]
        self._held[open_task.task.id] = open_task
        fence = self._fences.setdefault((open_task.task.scan, need.pipeline, need.settings), _FenceQueue())
        heapq.heappush(fence.queue, (need.upto, open_task.seq, open_task.task.id, position))

    def questions(self, now: Seconds) -> list[Effect]:
        """Ask for the lowest fence of each queue, when that is due."""
        effects: list[Effect] = []
        for (scan, pipeline, settings), fence in list(self._fences.items()):
            while fence.queue and fence.queue[0][2] not in self._held:
                heapq.heappop(fence.queue)
            if not fence.queue:
                del self._fences[scan, pipeline, settings]
            elif fence.poll.due(now) or fence.asked != fence.queue[0][0]:
                fence.asked = fence.queue[0][0]
                need = Need(pipeline=pipeline, dataset="", upto=fence.asked, settings=settings)
                request = FenceRequest(scan=scan, need=need, wait=fence.poll.wait)
                effects += [Send(link("fence"), request), fence.poll.asked(now)]
        return effects

    def reached(self, answer: FenceReached | FencePending) -> list[OpenTask]:
        """Note how far a pipeline is complete; return the tasks that may be leased now."""
        fence = self._fences.get((answer.scan, answer.need.pipeline, answer.need.settings))
        if fence is None:
            return []
        fence.poll.answered()
        fence.complete = max(fence.complete, answer.complete)
        free = []
        while isinstance(answer, FenceReached) and fence.queue and fence.queue[0][0] <= answer.complete:
            *_, task_id, position = heapq.heappop(fence.queue)
            open_task = self._held.pop(task_id, None)
            if open_task is not None and position + 1 < len(open_task.task.needs):
                self._queue(open_task, position + 1)
            elif open_task is not None:
                free.append(open_task)
        return free

    def broken(self, answer: FenceBroken) -> list[OpenTask]:
        """Return the tasks whose need can never be met."""
        fence = self._fences.get((answer.scan, answer.need.pipeline, answer.need.settings))
        if fence is None:
            return []
        fence.poll.answered()
        cancelled_tasks = [task_id for upto, _, task_id, _ in fence.queue if upto >= answer.need.upto]
        return [self._held.pop(task_id) for task_id in cancelled_tasks if task_id in self._held]

    def cancel(self, scan: ScanId, before: int) -> list[OpenTask]:
        """Take out the tasks of a scan whose position in the journal is before `before`."""
        meant = [open_task for open_task in self._held.values() if open_task.task.scan == scan and open_task.seq < before]
        return [self._held.pop(open_task.task.id) for open_task in meant]

    def unreachable(self, now: Seconds) -> None:
        """Ask again in a moment: the fence service does not answer."""
        for fence in self._fences.values():
            fence.poll.rest(now, 1.0)

    def __len__(self) -> int:
        return len(self._held)

    def why(self) -> str:
        """Return what the held tasks wait for."""
        for (_, pipeline, _), fence in self._fences.items():
            if fence.queue and self._held:
                tasks = "1 task waits" if len(self._held) == 1 else f"{len(self._held)} tasks wait"
                return f"{tasks} for a fence: {pipeline} complete to index {fence.complete} of {fence.queue[0][0]}"
        return ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        queued = [task for fence in self._fences.values() for *_, task, _ in fence.queue if task in self._held]
        assert len(queued) == len(self._held) == len(set(queued)), "a fenced task waits for no fence, or for two"
