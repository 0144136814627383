"""How a component stays known: it says `Hello`, sends heartbeats, and says `Hello` again if the topology manager forgot it.

Theory: the topology manager keeps soft state. Nothing waits for it; a component that cannot reach it works on and goes on
sending heartbeats. `Poll` serves the other direction: one outstanding question to a peer that may restart, asked again when its
answer does not come in time.

Clock policy: `now` is the caller's monotonic clock; a heartbeat is due every `beat` seconds, late ticks only delay it.
Invariants: at most one `Heartbeat` and one `Hello` per `beat`.
"""

from dataclasses import dataclass

from beamtide.machine import Effect, Send, WakeAt, link
from beamtide.messages.base import Message, Seconds
from beamtide.messages.topology import ComponentCard, ComponentState, Heartbeat, Hello, Unregistered

GRACE = 1.0
"""So many seconds longer than the wait in the request we wait for its answer."""
NOTHING_NEW = 0.9
"""The share of the wait before which a peer does not answer that nothing is new."""


@dataclass(slots=True)
class Session:
    """The registration of one component."""

    card: ComponentCard
    beat: Seconds = Seconds(2.0)
    _known: bool = False
    _due: float = 0.0

    def heard(self, message: Message) -> None:
        """Handle an answer of the topology manager."""
        known = not isinstance(message, Unregistered)
        if self._known and not known:
            self._due = 0.0
        self._known = known

    def due(self, now: Seconds) -> bool:
        """Whether `tick` has something to send."""
        return now >= self._due

    def tick(self, now: Seconds, state: ComponentState, progress: dict[str, float], why: str) -> list[Effect]:
        """Return the messages that are due at `now`."""
        if not self.due(now):
            return []
        self._due = now + self.beat
        beat = Heartbeat(name=self.card.name, boot=self.card.boot, state=state, progress=progress, why=why)
        message: Message = beat if self._known else Hello(card=self.card)
        return [Send(link("topology"), message), WakeAt(Seconds(self._due))]

    def farewell(self, progress: dict[str, float]) -> list[Effect]:
        """Return the last heartbeat, which says that the component stops."""
        beat = Heartbeat(name=self.card.name, boot=self.card.boot, state="stopped", progress=progress)
        return [Send(link("topology"), beat)]


@dataclass(slots=True)
class Poll:
    """One long-poll request to a peer, sent again when no answer came `GRACE` seconds after its wait."""

    wait: float = 2.0
    """Short, because a peer that restarted has lost the request: it is sent again only after this wait and GRACE."""
    _deadline: float = 0.0
    _asked: float = 0.0

    def due(self, now: Seconds) -> bool:
        """Whether the request should be sent now."""
        return now >= self._deadline

    def asked(self, now: Seconds) -> WakeAt:
        """Note that it was sent; wake up in case no answer comes."""
        self._asked, self._deadline = now, now + self.wait + GRACE
        return WakeAt(Seconds(self._deadline))

    def answered(self) -> None:
        """Note that the answer came: the next request is due at once."""
        self._deadline = 0.0

    def heard(self, now: Seconds, *, news: bool) -> None:
        """Note an answer. One that comes early and without news answers an older request: the newest is still open."""
        if news or now >= self._asked + NOTHING_NEW * self.wait:
            self.answered()

    def rest(self, now: Seconds, seconds: float) -> WakeAt:
        """Send nothing before `seconds` have passed."""
        self._deadline = now + seconds
        return WakeAt(Seconds(self._deadline))
