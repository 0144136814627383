"""The topology manager's core: all components, with their configuration and state.

Theory: soft state. A component says `Hello` with its card and sends heartbeats; this state can be lost at any time, since every
component says `Hello` again when a heartbeat is answered `Unregistered`. Nothing else waits for the topology manager.

Clock policy: a component that has not been heard of for `LOST_AFTER` seconds of the monotonic clock is shown as lost, and
stays listed. A late tick shows it later, nothing more.
Invariants: one report per name; the newest boot of a name wins; the version grows with every change that a person would see.
"""

from collections import deque
from dataclasses import dataclass, field

from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamtide.machine import Effect, Event, Heard, Peer, Send, Unreachable, WakeAt
from beamtide.messages import Message, Ok, Refused
from beamtide.messages.base import Seconds
from beamtide.messages.topology import (
    ComponentCard,
    ComponentReport,
    ComponentState,
    Heartbeat,
    Hello,
    Topology,
    TopologyRequest,
    Unregistered,
)

LOST_AFTER = 7.0
"""Three heartbeats of two seconds, and a margin."""
BOOTS = 16


@dataclass(slots=True)
class _KnownComponent:
    card: ComponentCard
    heard: float
    replaced: deque[str]
    """Boots of this name that a newer one replaced."""
    progress: dict[str, float] = field(default_factory=dict)
    why: str = ""
    reported: ComponentState = "running"


@dataclass(slots=True)
class TopologyMachine:
    """The components of one site; `card` is that of the topology manager itself, listed with the others."""

    card: ComponentCard | None = None
    _known: dict[str, _KnownComponent] = field(default_factory=dict)
    _version: int = 0
    _waiting: PendingRequests[Peer, TopologyRequest] = field(default_factory=PendingRequests)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case Heard(message=Hello(card=card)) as heard:
                effects.append(Send(heard.peer, self._register(card, now), heard.id))
            case Heard(message=Heartbeat()) as heard:
                effects.append(Send(heard.peer, self._beat(heard.message, now), heard.id))
            case Heard(message=TopologyRequest() as request) as heard:
                deadline = self._waiting.add(heard.peer, heard, request, now, request.wait)
                effects.append(WakeAt(Seconds(deadline)))
            case Unreachable() as gone:
                self._waiting.forget(gone)
        self._notice_silence(now)
        return effects + self._answer(now)

    def progress(self) -> dict[str, float]:
        """Return how many components are known, and how many are lost."""
        lost = sum(known.reported == "lost" for known in self._known.values())
        return {"components": len(self._known), "lost": lost}

    def why(self) -> str:
        """Say which components are lost."""
        lost = sorted(name for name, known in self._known.items() if known.reported == "lost")
        return f"nothing was heard of {', '.join(lost)}" if lost else ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert all(name == known.card.name for name, known in self._known.items()), "a report under another name"

    def _register(self, card: ComponentCard, now: Seconds) -> Message:
        known = self._known.get(card.name)
        replaced: deque[str] = deque(maxlen=BOOTS) if known is None else known.replaced
        if known is not None and known.card.boot != card.boot:
            if card.boot in replaced:
                if known.reported not in ("lost", "stopped"):
                    return _too_old(known.card)
                replaced.remove(card.boot)  # the older one takes over from the newer one, which is gone
            replaced.append(known.card.boot)
        self._known[card.name] = _KnownComponent(card, now, replaced)
        self._version += 1
        return Ok()

    def _beat(self, beat: Message, now: Seconds) -> Message:
        assert isinstance(beat, Heartbeat)
        known = self._known.get(beat.name)
        if known is not None and beat.boot in known.replaced and known.reported not in ("lost", "stopped"):
            return _too_old(known.card)
        if known is None or known.card.boot != beat.boot:
            return Unregistered(name=beat.name)
        seen = (known.reported, known.progress, known.why)
        known.heard, known.progress, known.why, known.reported = now, beat.progress, beat.why, beat.state
        self._version += seen != (known.reported, known.progress, known.why)
        return Ok()

    def _notice_silence(self, now: Seconds) -> None:
        for known in self._known.values():
            if known.reported not in ("lost", "stopped") and now - known.heard > LOST_AFTER:
                known.reported = "lost"
                self._version += 1

    def _answer(self, now: Seconds) -> list[Effect]:
        ready = [key for key, asker in self._waiting.items() if asker.message.after < self._version]
        askers = [asker for key in ready if (asker := self._waiting.take(key))]
        askers += [asker for _, asker in self._waiting.expired(now)]
        return [self._to(asker, now) for asker in askers]

    def _to(self, asker: Asker[TopologyRequest], now: Seconds) -> Send:
        reports = tuple(
            ComponentReport(
                card=known.card,
                state=known.reported,
                progress=known.progress,
                why=known.why,
                age=round(now - known.heard, 3),
            )
            for _, known in sorted(self._known.items())
        )
        if self.card is not None:
            own = ComponentReport(card=self.card, state="running", progress=self.progress(), why=self.why(), age=0.0)
            reports = (own, *reports)
        return Send(asker.peer, Topology(components=reports, version=self._version), asker.id)


def _too_old(newer: ComponentCard) -> Refused:
    return Refused(reason=f"another {newer.name} was started later, on {newer.host} as process {newer.pid}; stop one of the two")
