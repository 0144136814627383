"""The autoscaler's core: from messages of buffers, metadata server, people and batch system to calls and answers.

Theory: each buffer has one long-poll request, which it answers at once when its queue grows quickly; scans are watched the same
way. Sorters are asked at every tick whether there is room for results; while one does not answer, its last answer holds. A
decision is made at every tick and whenever a queue grows quickly. Calls to the batch system (`calls`) and rows to keep on disk
(`changes`) are collected; the shell writes first and then calls. An answer that promises something on disk waits until it is
there (`kept`).

Clock policy: `now` is the monotonic clock of the process in seconds.
Invariants: those of `Planner` and `Ledger`; an order is in `changes` in the same batch in which it is in `calls`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from beamtide.machine import Effect, Event, Heard, Send, Tick, WakeAt, link
from beamtide.messages.base import Message, Ok, Refused, Seconds, Unsupported, kind_of
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest, JobsRequest, PipelineRequest, ScaleRequest, SorterGauge
from beamtide.session import Poll
from cluster_side.scaling import reports
from cluster_side.scaling.jobs.batch_calls import Answered, BatchCall, Cancel, Look, Result, Submit
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launchers.base import JobOrder, Seen, Unseen
from cluster_side.scaling.policy.planner import Planner, Start

KEEP_EVERY = 60.0
"""Seconds between two writings of node-hours spent, service times and cold starts."""
SOON = 0.02
METADATA = link("metadata")
Changes = dict[tuple[str, str], Any]


class ScalerMachine:
    """The core of the autoscaler. `order_for` makes the order for a decision."""

    def __init__(self, planner: Planner, tick: float, idle_exit: float, order_for: Callable[[Start], JobOrder]) -> None:
        self.planner, self._tick, self._idle_exit, self._order_for = planner, tick, idle_exit, order_for
        self.calls: list[BatchCall] = []
        self.changes: Changes = {}
        self.in_flight = 0
        """Batch calls under way: while there are some, their results are looked for all the time."""
        self._kept: dict[str, Order] = dict(planner.ledger.orders)
        self._polls = {name: Poll(tick) for name in planner.pipelines}
        self._scans, self._version = Poll(), 0
        self._promised: list[Send] = []
        self._ready: list[Send] = []
        self._next = self._next_note = 0.0
        self._looking = False

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        if isinstance(event, Heard):
            return self._heard(event, now)
        if not isinstance(event, Tick):
            return []
        sends, self._ready = self._ready, []
        effects: list[Effect] = [*sends]
        if now >= self._next:
            effects += [Send(link(f"sorter.{name}"), GaugeRequest()) for name in self.planner.pipelines]
            self._step(now)
            self._next = now + self._tick
        wake = now if self._promised else now + SOON if self.calls or self.in_flight else self._next
        return [*effects, *self._questions(now), WakeAt(Seconds(wake))]

    def took(self, results: list[Result], now: float) -> None:
        """Take the results of batch calls."""
        for result in results:
            if isinstance(result, Answered):
                self.planner.take(self.planner.ledger.answered(result.token, result.answer, now), now)
            elif isinstance(result, Seen | Unseen):
                self._looking = False
                self.planner.listed(result, now)
        self._note_orders()

    def kept(self) -> None:
        """Note that all changes are on disk."""
        self._ready, self._promised = [*self._ready, *self._promised], []
        self.changes = {}

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        ledger = self.planner.ledger
        numbers = {"jobs": float(ledger.alive()), "node_hours": round(self.planner.budget.spent(), 2)}
        for name, pipeline in self.planner.pipelines.items():
            numbers |= {f"{name}.jobs": float(len(ledger.of(name))), f"{name}.want": float(pipeline.want)}
        return numbers

    def why(self) -> str:
        """Return the reasons of the last decisions."""
        return "; ".join(f"{name}: {pipeline.because}" for name, pipeline in self.planner.pipelines.items() if pipeline.because)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        self.planner.ledger.check()

    def _heard(self, event: Heard, now: float) -> list[Effect]:
        match event.message:
            case BufferGauge() as gauge if event.peer == link(f"buffer.{gauge.pipeline}"):
                self._gauged(gauge, now)
            case SorterGauge() as results if event.peer == link(f"sorter.{results.pipeline}"):
                self.planner.pipelines[results.pipeline].full = results.full
            case Scans() as scans if event.peer == METADATA:
                self._scans.heard(Seconds(now), news=bool(scans.scans))
                for pipeline in self.planner.pipelines.values():
                    pipeline.forecast.heard(scans.scans, now)
                self._version = scans.version
            case JobsRequest():
                return [Send(event.peer, reports.jobs(self.planner, now), event.id)]
            case ScaleRequest():
                return self._scale(event, event.message)
            case Message() if not event.peer.startswith(b">"):
                return [Send(event.peer, Unsupported(kind=kind_of(event.message)), event.id)]
        return []

    def _gauged(self, gauge: BufferGauge, now: float) -> None:
        pipeline = self.planner.pipelines[gauge.pipeline]
        known = pipeline.gauge.ready if pipeline.gauge else 0
        pipeline.gauged(gauge, now)
        self._polls[gauge.pipeline].answered()
        self.planner.take(self.planner.ledger.workers_heard(gauge.jobs, now), now)
        if gauge.ready > 2 * known:
            self._next = 0.0

    def _scale(self, event: Heard, message: ScaleRequest) -> list[Effect]:
        if (pipeline := self.planner.pipelines.get(message.pipeline)) is None:
            known = ", ".join(self.planner.pipelines)
            return [Send(event.peer, Refused(reason=f"there is no pipeline {message.pipeline!r}; there are: {known}"), event.id)]
        pipeline.most, pipeline.paused = None if message.most < 0 else message.most, message.paused
        self.changes["scale", pipeline.name] = {"most": message.most, "paused": message.paused}
        self._promised.append(Send(event.peer, Ok(), event.id))
        self._next = 0.0
        return []

    def _step(self, now: float) -> None:
        for act in self.planner.step(now):
            self.calls.append(Submit(self._order_for(act)) if isinstance(act, Start) else Cancel(act.ids))
        if not self._looking:
            self._looking = True
            self.calls.append(Look())
        self._note_orders()
        if now >= self._next_note:
            self._next_note = now + KEEP_EVERY
            self.note()

    def note(self) -> None:
        """Add node-hours spent, service times and cold starts to the changes."""
        self.changes["budget", "hours"] = {str(hour): spent for hour, spent in self.planner.budget.hours.items()}
        for name, pipeline in self.planner.pipelines.items():
            self.changes["pace", name] = {"service_time": pipeline.service_time, "cold_starts": list(pipeline.cold_starts)}

    def _note_orders(self) -> None:
        orders = self.planner.ledger.orders
        for token in self._kept.keys() - orders.keys():
            self.changes["order", token] = None
        for token, order in orders.items():
            if self._kept.get(token) is not order:
                self.changes["order", token] = dataclasses.asdict(order)
        self._kept = dict(orders)

    def _questions(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        for name, poll in self._polls.items():
            if poll.due(now):
                pipeline = self.planner.pipelines[name]
                question: Message = PipelineRequest(
                    keep=pipeline.keep,
                    linger=pipeline.linger(self._idle_exit),
                    leaving=self.planner.leaving(name),
                    ready=pipeline.gauge.ready if pipeline.gauge else 0,
                    wait=self._tick,
                )
                effects += [Send(link(f"buffer.{name}"), question), poll.asked(now)]
        if self._scans.due(now):
            effects += [Send(METADATA, ScansRequest(after=self._version, wait=self._scans.wait)), self._scans.asked(now)]
        return effects


def restored(planner: Planner, rows: Mapping[str, Mapping[str, Any]], now: float) -> None:
    """Give a fresh `Planner` what an earlier autoscaler kept."""
    orders = [Order(**{**row, "ids": tuple(row["ids"])}) for row in rows.get("order", {}).values()]
    planner.ledger.restore(orders, now)
    planner.budget.hours = {int(hour): spent for hour, spent in rows.get("budget", {}).get("hours", {}).items()}
    for name, pipeline in planner.pipelines.items():
        scale, pace = rows.get("scale", {}).get(name, {}), rows.get("pace", {}).get(name, {})
        pipeline.paused, pipeline.most = scale.get("paused", False), None if scale.get("most", -1) < 0 else scale["most"]
        pipeline.service_time = pace.get("service_time", 0.0)
        pipeline.cold_starts.extend(pace.get("cold_starts", ()))
