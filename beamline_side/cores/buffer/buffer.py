"""The buffer of one pipeline: pulls tasks from the distributor, leases them to workers, and reports a verdict for each.

Theory: a task comes in once (`intake`), may wait for a fence (`fenced_tasks`), waits in the queue (`backlog`), is leased until an
attempt stores its result (`lease_table`), and ends in a verdict (`verdicts`). A task that failed too often becomes a dead letter;
a retry gives it the next generation, whose verdict takes the place of the one before. Workers send a request and wait
(`idle_workers`). A worker that asks again did not receive its lease, and gets the same one.

Clock policy: `now` is the monotonic clock in seconds; leases run by `lease_clock`. A tick, after all messages of a batch, ends
expired leases and sends requests.
Invariants: those of the parts; a task is fenced, in the backlog, in the lease table, or closed; a verdict is deleted only when
the distributor has confirmed it.
"""

import itertools

from beamline_side.cores.buffer.backlog import Backlog
from beamline_side.cores.buffer.dead_letters import DeadLetterBox
from beamline_side.cores.buffer.fenced_tasks import FencedTasks
from beamline_side.cores.buffer.idle_workers import IdleWorkers
from beamline_side.cores.buffer.intake import CREDIT, Intake
from beamline_side.cores.buffer.lease_clock import LeaseClock
from beamline_side.cores.buffer.lease_table import LeaseTable
from beamline_side.cores.buffer.open_task import TABLE, Change, OpenTask, open_task_of
from beamline_side.cores.buffer.orderings import ORDERINGS
from beamline_side.cores.buffer.rates import Rates
from beamline_side.cores.buffer.verdicts import Verdicts
from beamline_side.cores.buffer.verdicts_to_sorter import VerdictsToSorter
from beamtide.config.models import LeaseConfig, PipelineConfig
from beamtide.machine import Effect, Event, Heard, Peer, Send, Shelf, Tick, Unreachable, WakeAt, link
from beamtide.messages.base import Message, Ok, PipelineName, Refused, Seconds
from beamtide.messages.dead_letters import DeadListRequest, DropRequest, RetryRequest
from beamtide.messages.fences import FenceBroken, FencePending, FenceReached
from beamtide.messages.results import StoredBefore
from beamtide.messages.scaling import BufferGauge, GaugeRequest, PipelineRequest
from beamtide.messages.tasks import Beat, Entry, LeaseRequest, Pulled, Stale, TaskDone, TaskFailed

MOST_WAITING = 1 << 20
"""How many tasks a buffer takes in that does not lease them in the order of arrival."""
DISTRIBUTOR, FENCE, SORTER = link("distributor"), link("fence"), link("sorter")


class BufferMachine:
    """The core of one buffer."""

    def __init__(self, pipeline: PipelineConfig, leases: LeaseConfig, shelf: Shelf, most: int = MOST_WAITING) -> None:
        self._name = PipelineName(pipeline.pipeline)
        ordering = ORDERINGS[pipeline.buffer.order]
        self._table, self._backlog = LeaseTable(leases.ttl, leases.faults, leases.losses, ordering), Backlog(ordering, shelf)
        self._fenced, self._letters = FencedTasks(), DeadLetterBox(shelf)
        self._intake = Intake(self._name, shelf, CREDIT if pipeline.buffer.order == "fifo" else most)
        self._to_sorter = VerdictsToSorter(shelf)
        self._workers, self._rates, self._clock = IdleWorkers(), Rates(), LeaseClock()
        self._time, self._begun, self._armed = Seconds(0.0), False, 0.0
        self._verdicts = Verdicts(self._intake, self._letters, self._to_sorter)
        for open_task in (open_task_of(body) for _, body in shelf.rows(TABLE)):
            if open_task.attempt:
                self._table.restore(open_task)
            else:
                (self._fenced.hold if open_task.task.needs else self._backlog.restore)(open_task)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        self._time = self._clock.at(now)
        effects = [] if self._begun and not isinstance(event, Tick) else self._in_time()
        if isinstance(event, Heard):
            self._workers.heard(event.peer)
            effects += self._heard(event, now)
        elif isinstance(event, Unreachable):
            effects += self._unreachable(event, now)
        effects += self._dispatch()
        if isinstance(event, Tick):
            effects += self._due(now)
        return effects

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        return {**self._counts(), "retrying": self._table.waiting, "dead": len(self._letters)}

    def why(self) -> str:
        """Return why tasks wait."""
        return "; ".join(filter(None, (self._fenced.why(), self._table.why(len(self._backlog)), self._to_sorter.why())))

    def check(self) -> None:
        """Raise if an invariant is broken."""
        for part in (self._table, self._fenced, self._backlog, self._letters, self._intake.to_distributor):
            part.check()
        assert not (self._workers and (self._table.ready or self._backlog)), "a task and a worker wait at the same time"

    def _in_time(self) -> list[Effect]:
        """Do what is due at this time."""
        if not self._begun:
            self._backlog.begin(self._time)
            self._begun = True
        return self._verdicts.settle([*self._table.expire(self._time), *self._backlog.end_doomed()])

    def _heard(self, event: Heard, now: Seconds) -> list[Effect]:
        if not (peer := event.peer).startswith(b">"):
            return self._asked(event, event.message, now)
        match event.message:
            case Pulled() as answer if peer == DISTRIBUTOR:
                return self._pulled(answer, now)
            case FenceReached() | FencePending() as answer if peer == FENCE:
                admitted = [self._backlog.add(open_task, self._time) for open_task in self._fenced.reached(answer)]
                return [*itertools.chain(*admitted)]
            case FenceBroken() as answer if peer == FENCE:
                return self._verdicts.abandon(self._fenced.broken(answer), answer.reason)
            case Ok() | Refused() | StoredBefore() as answer if peer == SORTER:
                return self._verdicts.heard(answer)
            case Refused() if peer == DISTRIBUTOR:
                return list(self._intake.refused(now))
        return []

    def _asked(self, event: Heard, message: Message, now: Seconds) -> list[Effect]:
        match message:
            case LeaseRequest():
                return self._wanted(event, message, now)
            case TaskDone():
                return self._finished(event, message)
            case Beat(task=task, attempt=attempt):
                answer = Ok() if self._table.beat(task, attempt, self._time) else Stale(task=task, attempt=attempt)
                return [Send(event.peer, answer, event.id)]
            case TaskFailed(task=task, attempt=attempt, cause=cause, reason=reason, host=host):
                self._table.note(message)
                said = f"{reason} (on {host})" if host else reason
                return self._ended(event, message, self._table.failed(task, attempt, cause, said, self._time))
            case PipelineRequest():
                return self._workers.autoscaler_asked(event, message, now)
            case GaugeRequest():
                return [Send(event.peer, self._gauge(now), event.id)]
            case DeadListRequest():
                return [Send(event.peer, self._letters.answer(message), event.id)]
            case RetryRequest(tasks=tasks) | DropRequest(tasks=tasks):
                letters, effects = self._letters.take(tasks)
                again = letters if isinstance(message, RetryRequest) else []
                changes = [self._table.submit(one.task, one.seq, self._time, one.attempts) for one in again]
                effects += [*self._verdicts.retried(again), *self._verdicts.settle([*itertools.chain(*changes)])]
                return [*effects, Send(event.peer, Ok(), event.id)]
        return []

    def _wanted(self, event: Heard, request: LeaseRequest, now: Seconds) -> list[Effect]:
        if (grant := self._table.lease_of(request.worker)) is not None:
            self._table.beat(grant.task.id, grant.attempt, self._time)
            return [self._workers.lease(event.peer, event.id, grant, self._table.ttl)]
        if (farewell := self._workers.farewell(request, self._rates, now)) is not None:
            return [Send(event.peer, farewell, event.id)]
        if self._table.ready or self._backlog:
            return self._lease(event.peer, event.id, request)
        self._workers.wait(event, request, now)
        return []

    def _finished(self, event: Heard, message: TaskDone) -> list[Effect]:
        if self._table.holds(message.task, message.attempt):
            self._rates.served(message.seconds or self._time - self._table.held_since(message.task))
        return self._ended(event, message, self._table.done(message.task, message.attempt, message.outcome))

    def _ended(self, event: Heard, message: TaskDone | TaskFailed, changes: list[Change] | None) -> list[Effect]:
        answer = Stale(task=message.task, attempt=message.attempt) if changes is None else Ok()
        return [*self._verdicts.settle(changes or []), Send(event.peer, answer, event.id)]

    def _pulled(self, answer: Pulled, now: Seconds) -> list[Effect]:
        fresh, effects = self._intake.heard(answer, now)
        self._rates.arrived(sum(entry.task is not None for entry in fresh), now)
        return effects + [effect for entry in (*fresh, *answer.ahead) for effect in self._enter(entry)]

    def _enter(self, entry: Entry) -> list[Effect]:
        if entry.task is None:
            return self._cancel(entry)
        if self._table.knows(entry.task.id):
            return []
        open_task = OpenTask(entry.task, entry.seq)
        if entry.task.void:
            return self._verdicts.abandon([open_task], entry.task.void)
        if entry.task.needs:
            return self._fenced.hold(open_task)
        return self._backlog.add(open_task, self._time)

    def _cancel(self, entry: Entry) -> list[Effect]:
        if entry.cancelled is None:
            return []
        scan, reason = entry.cancelled.scan, entry.cancelled.reason
        held = self._verdicts.abandon(self._fenced.cancel(scan, entry.seq), reason)
        open_ones = self._verdicts.settle(self._table.cancel(scan, entry.seq, reason))
        return [*held, *open_ones, *self._backlog.cancel(scan, entry.seq, reason)]

    def _dispatch(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._workers and (self._table.ready or self._backlog):
            asker = self._workers.newest()
            effects += self._lease(asker.peer, asker.id, asker.message)
        return effects

    def _lease(self, peer: Peer, question: int, request: LeaseRequest) -> list[Effect]:
        """Lease the first of all tasks to a waiting worker."""
        open_task = self._backlog.take(self._table.first())
        changes = self._table.lease(request.worker, self._time, request.host, request.job, open_task)
        assert changes, "there was no task"
        return [changes[0], self._workers.lease(peer, question, changes[1], self._table.ttl)]

    def _due(self, now: Seconds) -> list[Effect]:
        """Pull, report and answer, once for all messages of a batch: the pump ends each batch with a tick."""
        effects = self._workers.expired(self._table.leased, now)
        ready = self._table.ready + len(self._backlog)
        effects += [Send(one.peer, self._gauge(now), one.id) for one in self._workers.curious(ready, now)]
        asked = self._intake.questions(now, self._table.waiting + len(self._backlog) + len(self._fenced))
        effects += [*asked, *self._fenced.questions(now), *self._to_sorter.due(now)]
        self._letters.written()
        return effects + self._wake(now)

    def _unreachable(self, event: Unreachable, now: Seconds) -> list[Effect]:
        if event.peer == DISTRIBUTOR:
            return list(self._intake.refused(now))
        if event.peer == FENCE:
            self._fenced.unreachable(now)
        elif event.peer == SORTER:
            self._to_sorter.unreachable(now)
        if (held := self._workers.gone(event)) is None:
            return []
        return self._verdicts.settle(self._table.failed(*held, "handback", "gone before it received its lease", self._time) or [])

    def _gauge(self, now: Seconds) -> BufferGauge:
        return BufferGauge(
            pipeline=self._name,
            idle=len(self._workers),
            oldest_wait=max(self._table.oldest_wait(self._time), self._backlog.oldest_wait(self._time)),
            service_time=self._rates.service_time,
            arrival_rate=self._rates.arrival_rate(now),
            service_p95=self._rates.percentile(95),
            service_p99=self._rates.percentile(99),
            jobs=self._workers.jobs(self._table.leased_by_job(), now),
            starts=self._workers.starts(),
            **self._counts(),
        )

    def _counts(self) -> dict[str, int]:
        table = self._table
        workers = len(self._workers) + table.leased
        now = {"ready": table.ready + len(self._backlog), "held": len(self._fenced), "leased": table.leased, "workers": workers}
        return {**now, "done": self._verdicts.done, "abandoned": self._verdicts.abandoned, "retried": table.retried}

    def _wake(self, now: Seconds) -> list[Effect]:
        """Ask for a tick at the next deadline, unless an earlier one was asked for."""
        ends = None if (lease_ends := self._table.wake()) is None else self._clock.when(lease_ends)
        ends = now if self._backlog.ending else ends
        times = (ends, self._workers.wake(), self._intake.wake(), self._to_sorter.wake())
        soonest = min((time for time in times if time is not None), default=None)
        if soonest is None or now < self._armed <= soonest:
            return []
        self._armed = max(soonest, now)
        return [WakeAt(Seconds(soonest))]
