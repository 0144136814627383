"""The task distributor's core: accepts tasks once, keeps them until the pipeline's buffer has them, and counts their verdicts.

Theory: each pipeline has a journal of entries 1, 2, 3 …; its buffer reads it with a cursor. A request for entries after n says
that all up to n are on the buffer's disk, so they are deleted here. Memory holds two numbers per pipeline; entries and the table
of known tasks (to recognise a task that is submitted twice) are read from the spool when they are needed, so a million waiting
tasks need only disk space, and a restart is fast. Buffers report verdicts; each is counted once.

An index of a product has one task: of a task that overlaps with others (the blocks of a scan were cut in another way before) only
the indexes that have none are taken.

Clock policy: `now` is the monotonic clock in seconds; a request waits at most as long as it says.
Invariants: the journal holds exactly the entries passed < seq <= last; a tally never counts more verdicts than tasks.
"""

from collections.abc import Mapping

import msgspec

from beamline_side.cores.distributor.cut_task import cut
from beamline_side.cores.distributor.finished_ranges import remaining
from beamline_side.cores.distributor.tallies import Tallies
from beamline_side.cores.distributor.task_log import TaskLog
from beamline_side.cores.pending_requests import PendingRequests
from beamtide.config.section import NAME
from beamtide.machine import Effect, Event, Heard, Peer, Send, Shelf, Unreachable, WakeAt
from beamtide.messages.base import Ok, PipelineName, Refused, Seconds, TaskId
from beamtide.messages.results import product_of
from beamtide.messages.tasks import (
    Cancelled,
    CancelRequest,
    PullRequest,
    StatusRequest,
    SubmitRequest,
    Task,
    WatchTasksRequest,
)

LONGEST_ID = 512
ROW = 2048
"""About so many bytes on the disk per task."""
SOFT = 0.8
"""The share of `backlog` (bytes) up to which new tasks are accepted."""
RETRY = 2.0
"""Seconds after which a client may repeat a submission that found no room."""


class DistributorMachine:
    """The core of the task distributor; `modalities` names the modality of each pipeline."""

    def __init__(self, modalities: Mapping[str, str], shelf: Shelf, backlog: int = 64 << 30) -> None:
        self._modalities, self._shelf, self._backlog = dict(modalities), shelf, backlog
        self._journals = {PipelineName(name): TaskLog(PipelineName(name), shelf) for name in modalities}
        self._tallies = Tallies(shelf)
        self._pulls: PendingRequests[PipelineName, PullRequest] = PendingRequests()
        self._credits: dict[PipelineName, int] = {}
        self._watchers: PendingRequests[Peer, WatchTasksRequest] = PendingRequests()

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        if isinstance(event, Heard):
            effects += self._heard(event, now)
        elif isinstance(event, Unreachable):
            self._pulls.forget(event)
            self._watchers.forget(event)
        effects += self._serve(now)
        wakes = [wake for wake in (self._pulls.wake(), self._watchers.wake()) if wake is not None]
        return [*effects, WakeAt(Seconds(min(wakes)))] if wakes else effects

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        queued = {f"queued.{name}": float(len(task_log)) for name, task_log in self._journals.items()}
        return {**self._tallies.progress(), **queued}

    def why(self) -> str:
        """Return why tasks wait."""
        waiting = [name for name, task_log in self._journals.items() if len(task_log)]
        silent = ", ".join(name for name in waiting if name not in self._credits)
        full = ", ".join(name for name in waiting if self._credits.get(name) == 0)
        reasons = (f"the buffer of {silent} has not asked yet" if silent else "", f"the buffer of {full} is full" if full else "")
        return "; ".join(filter(None, reasons))

    def check(self) -> None:
        """Raise if an invariant is broken."""
        for task_log in self._journals.values():
            task_log.check()
        self._tallies.check()

    def _heard(self, event: Heard, now: Seconds) -> list[Effect]:
        match event.message:
            case SubmitRequest(tasks=tasks):
                return self._submit(event, tasks)
            case PullRequest() as pull:
                return self._pull(event, pull, now)
            case CancelRequest() as wish:
                return self._cancel(event, wish)
            case StatusRequest(scan=scan):
                return [Send(event.peer, self._tallies.status(scan), event.id)]
            case WatchTasksRequest(wait=wait) as watch:
                self._watchers.add(event.peer, event, watch, now, wait)
        return []

    def _submit(self, event: Heard, tasks: tuple[Task, ...]) -> list[Effect]:
        for task in tasks:
            if complaint := self._complaint(task):
                return [Send(event.peer, Refused(reason=complaint), event.id)]
        effects: list[Effect] = []
        fresh: dict[TaskId, Task] = {}
        for task in tasks:
            if not self._tallies.knows(task):
                fresh |= {part.id: part for part in self._unclaimed(task, fresh)}
        again = list({task.id: task for task in tasks if self._tallies.reopens(task)}.values())
        if (fresh or again) and (full := self._full(len(fresh) + len(again))):
            return [Send(event.peer, Refused(reason=full, retry_after=RETRY), event.id)]
        for task in (*fresh.values(), *again):
            effects += self._journals[task.pipeline].append(task)
        effects += [*self._tallies.submit(fresh.values()), *self._tallies.reopen(again)]
        return [*effects, Send(event.peer, Ok(), event.id)]

    def _unclaimed(self, task: Task, fresh: dict[TaskId, Task]) -> list[Task]:
        """Return what of a task no other task has, known or fresh: cut otherwise than before, it gets what is left."""
        free = self._tallies.unclaimed(task)
        last = next(reversed(fresh.values()), None)
        if last is not None and task.start < last.stop:  # not in order, as tasks of a source are
            own = [one for one in fresh.values() if product_of(one) == product_of(task)]
            free = remaining(free, [(one.start, one.stop) for one in own])
        return [task] if free == [(task.start, task.stop)] else [cut(task, *part) for part in free]

    def _full(self, count: int) -> str:
        """Why there is no room for so many more tasks now: a sentence, or ""."""
        waiting = sum(map(len, self._journals.values()))
        if ROW * (waiting + count) > SOFT * self._backlog:
            return f"{waiting} tasks wait to be taken by buffers, as many as budgets.backlog allows"
        return self._shelf.room(ROW * count)

    def _pull(self, event: Heard, pull: PullRequest, now: Seconds) -> list[Effect]:
        task_log = self._journals.get(pull.pipeline)
        if task_log is None:
            return [Send(event.peer, Refused(reason=self._no_pipeline(pull.pipeline)), event.id)]
        self._credits[pull.pipeline] = pull.credit
        effects = task_log.confirm(pull.after) + self._tallies.close(pull.closed)
        self._pulls.add(pull.pipeline, event, pull, now, 0.0 if pull.closed else pull.wait)
        return effects

    def _cancel(self, event: Heard, wish: CancelRequest) -> list[Effect]:
        if wish.pipeline and wish.pipeline not in self._journals:
            return [Send(event.peer, Refused(reason=self._no_pipeline(wish.pipeline)), event.id)]
        effects: list[Effect] = []
        for name in sorted(self._tallies.open_pipelines(wish.scan) & self._journals.keys()):
            if wish.pipeline in ("", name):
                effects += self._journals[name].append(Cancelled(scan=wish.scan, reason=wish.reason))
        return [*effects, Send(event.peer, Ok(), event.id)]

    def _serve(self, now: Seconds) -> list[Effect]:
        """Answer the requests for which there is something now, or whose wait is over."""
        pulls, watchers = self._pulls.expired(now), self._watchers.expired(now)
        for name, pull in self._pulls.items():
            if self._journals[name].has_news(pull.message.credit):
                self._pulls.take(name)
                pulls.append((name, pull))
        for key, watch in self._watchers.items():
            if self._tallies.changed_after(watch.message.scan, watch.message.after):
                self._watchers.take(key)
                watchers.append((key, watch))
        effects: list[Effect] = []
        for name, pull in pulls:
            pulled = self._journals[name].answer(pull.message.credit)
            closed = pull.message.closed
            confirmed, generations = tuple(one.task for one in closed), tuple(one.generation for one in closed)
            answer = msgspec.structs.replace(pulled, confirmed=confirmed, generations=generations)
            effects.append(Send(pull.peer, answer, pull.id))
        for _, watch in watchers:
            effects.append(Send(watch.peer, self._tallies.status(watch.message.scan), watch.id))
        for task_log in self._journals.values():
            task_log.written()
        return effects

    def _no_pipeline(self, name: str) -> str:
        return f"there is no pipeline {name!r}; this site has: {', '.join(sorted(self._modalities))}"

    def _complaint(self, task: Task) -> str:
        """Return why a task cannot be accepted; "" if it can."""
        modality = self._modalities.get(task.pipeline)
        if modality is None:
            return self._no_pipeline(task.pipeline)
        if modality != task.modality:
            return f"task {task.id}: pipeline {task.pipeline} is for {modality}, not for {task.modality}"
        if not 0 <= task.start < task.stop:
            return f"task {task.id}: indexes from {task.start} to {task.stop} are not a range; give 0 <= start < stop"
        if not NAME.fullmatch(task.scan):
            return f"the scan name {task.scan!r} cannot be used for a folder: use letters, digits, or _ . + -, no leading dot"
        if not 0 < len(task.id) <= LONGEST_ID:
            return f"a task id has 1 to {LONGEST_ID} characters, not {len(task.id)}"
        return ""
