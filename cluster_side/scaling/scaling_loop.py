"""The autoscaler's core: what it hears from buffers, the metadata server, people and the batch system, and what it then does.

Theory: buffers are asked a long question each, and answer at once when their queue jumps; scans are watched the same way. Sorters
are asked at every tick whether there is room for results; one that is silent is believed what it said last. A
decision is made at every tick and at each jump. What should happen outside (`errands`) and what must be kept (`changes`) is
collected; the shell keeps first and acts then. An answer that promises something on disk waits until the shell said so (`kept`).

Clock policy: `now` is the monotonic clock of the process in seconds.
Invariants: those of `Steering` and `Ledger`; an order is in `changes` in the same batch in which it is in `errands`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from beamtide.machine import Effect, Event, Heard, Send, Tick, WakeAt, link
from beamtide.messages.base import Message, Ok, Refused, Seconds, Unsupported, kind_of
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.scaling import BufferGauge, CrewRequest, GaugeRequest, JobsRequest, ScaleRequest, SorterGauge
from beamtide.session import Poll
from cluster_side.scaling import reports
from cluster_side.scaling.jobs.batch_calls import Answered, Cancel, Errand, Look, Result, Submit
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launchers.base import JobOrder, Seen, Unseen
from cluster_side.scaling.policy.planner import Buy, Steering

KEEP_EVERY = 60.0
"""Seconds between two notes of what was spent and how long things take."""
SOON = 0.02
METADATA = link("metadata")
Changes = dict[tuple[str, str], Any]


class ScalerMachine:
    """The core of the autoscaler. `order_for` makes the order for a decision."""

    def __init__(self, steering: Steering, tick: float, idle_exit: float, order_for: Callable[[Buy], JobOrder]) -> None:
        self.steering, self._tick, self._idle_exit, self._order_for = steering, tick, idle_exit, order_for
        self.errands: list[Errand] = []
        self.changes: Changes = {}
        self.in_flight = 0
        """Errands under way: their results are waited for without pause."""
        self._kept: dict[str, Order] = dict(steering.ledger.orders)
        self._polls = {name: Poll(tick) for name in steering.crews}
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
            effects += [Send(link(f"sorter.{name}"), GaugeRequest()) for name in self.steering.crews]
            self._step(now)
            self._next = now + self._tick
        wake = now if self._promised else now + SOON if self.errands or self.in_flight else self._next
        return [*effects, *self._questions(now), WakeAt(Seconds(wake))]

    def took(self, results: list[Result], now: float) -> None:
        """Take what errands brought back."""
        for result in results:
            if isinstance(result, Answered):
                self.steering.take(self.steering.ledger.answered(result.token, result.answer, now), now)
            elif isinstance(result, Seen | Unseen):
                self._looking = False
                self.steering.pictured(result, now)
        self._note_orders()

    def kept(self) -> None:
        """Hear that all changes are on disk."""
        self._ready, self._promised = [*self._ready, *self._promised], []
        self.changes = {}

    def progress(self) -> dict[str, float]:
        """Return the numbers to show."""
        ledger = self.steering.ledger
        numbers = {"jobs": float(ledger.alive()), "node_hours": round(self.steering.budget.spent(), 2)}
        for name, crew in self.steering.crews.items():
            numbers |= {f"{name}.jobs": float(len(ledger.of(name))), f"{name}.want": float(crew.want)}
        return numbers

    def why(self) -> str:
        """Return the reasons of the last decisions."""
        return "; ".join(f"{name}: {crew.because}" for name, crew in self.steering.crews.items() if crew.because)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        self.steering.ledger.check()

    def _heard(self, event: Heard, now: float) -> list[Effect]:
        match event.message:
            case BufferGauge() as gauge if event.peer == link(f"buffer.{gauge.pipeline}"):
                self._gauged(gauge, now)
            case SorterGauge() as results if event.peer == link(f"sorter.{results.pipeline}"):
                self.steering.crews[results.pipeline].full = results.full
            case Scans() as scans if event.peer == METADATA:
                self._scans.heard(Seconds(now), news=bool(scans.scans))
                for crew in self.steering.crews.values():
                    crew.forecast.heard(scans.scans, now)
                self._version = scans.version
            case JobsRequest():
                return [Send(event.peer, reports.jobs(self.steering, now), event.id)]
            case ScaleRequest():
                return self._scale(event, event.message)
            case Message() if not event.peer.startswith(b">"):
                return [Send(event.peer, Unsupported(kind=kind_of(event.message)), event.id)]
        return []

    def _gauged(self, gauge: BufferGauge, now: float) -> None:
        crew = self.steering.crews[gauge.pipeline]
        known = crew.gauge.ready if crew.gauge else 0
        crew.gauged(gauge, now)
        self._polls[gauge.pipeline].answered()
        self.steering.take(self.steering.ledger.attended(gauge.jobs, now), now)
        if gauge.ready > 2 * known:
            self._next = 0.0

    def _scale(self, event: Heard, message: ScaleRequest) -> list[Effect]:
        if (crew := self.steering.crews.get(message.pipeline)) is None:
            known = ", ".join(self.steering.crews)
            return [Send(event.peer, Refused(reason=f"there is no pipeline {message.pipeline!r}; there are: {known}"), event.id)]
        crew.most, crew.paused = None if message.most < 0 else message.most, message.paused
        self.changes["scale", crew.name] = {"most": message.most, "paused": message.paused}
        self._promised.append(Send(event.peer, Ok(), event.id))
        self._next = 0.0
        return []

    def _step(self, now: float) -> None:
        for act in self.steering.step(now):
            self.errands.append(Submit(self._order_for(act)) if isinstance(act, Buy) else Cancel(act.ids))
        if not self._looking:
            self._looking = True
            self.errands.append(Look())
        self._note_orders()
        if now >= self._next_note:
            self._next_note = now + KEEP_EVERY
            self.note()

    def note(self) -> None:
        """Put what was spent and how long things take among the changes."""
        self.changes["budget", "hours"] = {str(hour): spent for hour, spent in self.steering.budget.hours.items()}
        for name, crew in self.steering.crews.items():
            self.changes["pace", name] = {"service_time": crew.service_time, "cold_starts": list(crew.cold_starts)}

    def _note_orders(self) -> None:
        orders = self.steering.ledger.orders
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
                crew = self.steering.crews[name]
                question: Message = CrewRequest(
                    keep=crew.keep,
                    linger=crew.linger(self._idle_exit),
                    leaving=self.steering.leaving(name),
                    ready=crew.gauge.ready if crew.gauge else 0,
                    wait=self._tick,
                )
                effects += [Send(link(f"buffer.{name}"), question), poll.asked(now)]
        if self._scans.due(now):
            effects += [Send(METADATA, ScansRequest(after=self._version, wait=self._scans.wait)), self._scans.asked(now)]
        return effects


def restored(steering: Steering, rows: Mapping[str, Mapping[str, Any]], now: float) -> None:
    """Give a fresh `Steering` what an earlier autoscaler kept."""
    orders = [Order(**{**row, "ids": tuple(row["ids"])}) for row in rows.get("order", {}).values()]
    steering.ledger.restore(orders, now)
    steering.budget.hours = {int(hour): spent for hour, spent in rows.get("budget", {}).get("hours", {}).items()}
    for name, crew in steering.crews.items():
        scale, pace = rows.get("scale", {}).get(name, {}), rows.get("pace", {}).get(name, {})
        crew.paused, crew.most = scale.get("paused", False), None if scale.get("most", -1) < 0 else scale["most"]
        crew.service_time = pace.get("service_time", 0.0)
        crew.cold_starts.extend(pace.get("cold_starts", ()))
