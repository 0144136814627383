"""The autoscaler's core: from messages of buffers, metadata server, people and batch system to calls and answers.

Theory: buffers are asked a long question each, and answer at once when their queue jumps; scans are watched the same way. Sorters
are asked at every tick whether there is room for results; one that is silent is believed what it said last. A
decision is made at every tick and at each jump. Calls to the batch system are effects (`jobs.batch_calls`), and what they bring
back are events.

Clock policy: `now` is the monotonic clock of the process in seconds.
Invariants: those of `Planner` and `Ledger`; an order is kept in the same batch in which it is started; at most one look is under
way, but for one more after a call failed.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from beamtide.machine import Effect, Event, Forget, Heard, Keep, Returned, Send, Tick, WakeAt, link
from beamtide.messages.base import Message, Ok, Refused, Seconds, Unsupported, kind_of
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest, JobsRequest, PipelineRequest, ScaleRequest, SorterGauge
from beamtide.session import Poll
from cluster_side.scaling import reports
from cluster_side.scaling.jobs.batch_calls import Answered, Look, Looked
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.policy.planner import Planner

KEEP_EVERY = 60.0
"""Seconds between two writings of node-hours spent, service times and cold starts."""
SOON = 0.02
METADATA = link("metadata")


class ScalerMachine:
    """The core of the autoscaler."""

    def __init__(self, planner: Planner, tick: float, idle_exit: float) -> None:
        self.planner, self._tick, self._idle_exit = planner, tick, idle_exit
        self._kept: dict[str, Order] = dict(planner.ledger.orders)
        self._polls = {name: Poll(tick) for name in planner.pipelines}
        self._scans, self._version = Poll(), 0
        self._next = self._next_note = 0.0
        self._looking = False

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        match event:
            case Heard():
                return self._heard(event, now)
            case Returned():
                return self._returned(event, now)
            case Tick():
                return self._ticked(now)
        return []

    def notes(self) -> list[Effect]:
        """Keep what was spent and how long things take."""
        spent = {str(hour): spent for hour, spent in self.planner.budget.hours.items()}
        effects: list[Effect] = [_row("budget", "hours", spent)]
        for name, pipeline in self.planner.pipelines.items():
            pace = {"service_time": pipeline.service_time, "cold_starts": list(pipeline.cold_starts)}
            effects.append(_row("pace", name, pace))
        return effects

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
        self._next = 0.0
        row = _row("scale", pipeline.name, {"most": message.most, "paused": message.paused})
        return [row, Send(event.peer, Ok(), event.id)]

    def _returned(self, event: Returned, now: float) -> list[Effect]:
        match event:
            case Answered(token, answer):
                self.planner.take(self.planner.ledger.answered(token, answer, now), now)
            case Looked(listing):
                self._looking = False
                self.planner.listed(listing, now)
        return self._changed_orders()

    def _ticked(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._next:
            effects += [Send(link(f"sorter.{name}"), GaugeRequest()) for name in self.planner.pipelines]
            effects += self._step(now)
            self._next = now + self._tick
        waits = self._looking or any(not order.unclear for order in self.planner.ledger.unanswered())
        return [*effects, *self._questions(now), WakeAt(Seconds(now + SOON if waits else self._next))]

    def _step(self, now: float) -> list[Effect]:
        effects: list[Effect] = [*self.planner.step(now)]
        if not self._looking:
            self._looking = True
            effects.append(Look())
        if now >= self._next_note:
            self._next_note = now + KEEP_EVERY
            effects += self.notes()
        return [*self._changed_orders(), *effects]

    def _changed_orders(self) -> list[Effect]:
        """Keep the orders that changed, and forget those that are over."""
        orders = self.planner.ledger.orders
        effects: list[Effect] = [Forget("order", token) for token in self._kept.keys() - orders.keys()]
        effects += [order_row(order) for token, order in orders.items() if self._kept.get(token) is not order]
        self._kept = dict(orders)
        return effects

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


def order_row(order: Order) -> Keep:
    """Return the row of an order; it is on disk before the batch system hears of it."""
    return _row("order", order.token, dataclasses.asdict(order))


def restored(planner: Planner, rows: Mapping[str, Mapping[str, bytes]], now: float) -> None:
    """Give a fresh `Planner` what an earlier autoscaler kept: rows by table and key, as in its state file."""
    kept = {table: {key: json.loads(body) for key, body in some.items()} for table, some in rows.items()}
    planner.ledger.restore([msgspec.convert(row, Order) for row in kept.get("order", {}).values()], now)
    planner.budget.hours = {int(hour): spent for hour, spent in kept.get("budget", {}).get("hours", {}).items()}
    for name, pipeline in planner.pipelines.items():
        scale, pace = kept.get("scale", {}).get(name, {}), kept.get("pace", {}).get(name, {})
        pipeline.paused, pipeline.most = scale.get("paused", False), None if scale.get("most", -1) < 0 else scale["most"]
        pipeline.service_time = pace.get("service_time", 0.0)
        pipeline.cold_starts.extend(pace.get("cold_starts", ()))


def _row(table: str, key: str, value: Any) -> Keep:
    return Keep(table, key, json.dumps(value).encode())
