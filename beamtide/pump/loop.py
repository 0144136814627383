"""The loop of a service: it moves parts between one socket, the spool and a core.

A service has exactly one socket, a ROUTER that both binds (for its clients) and connects (to other services; such a peer is
`machine.link(name)`). So the loop is: block in `recv` until a message comes or a deadline passes, receive all waiting messages,
let the core handle them, one commit, send. Measured: a poller in front of the socket triples the latency of single messages,
asyncio costs three to five times the CPU per message (ADR 0002).

Clock policy: `beamtide.clock.monotonic`, read once per event for the core.
"""

import heapq
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import zmq

from beamtide import clock, codec
from beamtide.errors import UnknownKind, WireError
from beamtide.machine import Call, Effect, Event, Forget, Heard, Keep, Machine, Send, Tick, Unreachable, WakeAt, link
from beamtide.messages import Message, Refused, Unsupported
from beamtide.pump.authentication import Authenticator, self_test
from beamtide.pump.shell import Outside, RowStore
from beamtide.pump.sockets import DONTWAIT, RCVTIMEO, ROOMY, Limits, contents, post, receive, router, send_tracked
from beamtide.pump.unread_answers import UnreadAnswers
from beamtide.session import Session

BATCH = 256
LONGEST_SLEEP = 1.0
BUSY = 1.0
"""Seconds after which a peer may ask again that has too many unread answers."""
TOPOLOGY = link("topology")


class Pump:
    """Drives one core until it is told to stop."""

    def __init__(
        self,
        machine: Machine,
        session: Session,
        links: Mapping[str, str],
        store: RowStore | None = None,
        limits: Limits = ROOMY,
    ) -> None:
        import structlog  # here, because workers have no pump, and their start should not wait for this import

        self._machine, self._session, self._store, self._limits = machine, session, store, limits
        self._weight, self._unread = 0, UnreadAnswers(limits.unread)
        self._log = structlog.get_logger().bind(component=session.card.name)
        self._context = zmq.Context()
        self._authenticator = Authenticator(self._context, limits.guard) if limits.guard else None
        self._links = {link(name): address for name, address in links.items()}
        try:
            self._socket = router(self._context, session.card.address, self._links, limits)
            if limits.guard:
                self_test(self._context, session.card.address, limits.guard)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._linked = bool(links.get("topology"))
        self._ids = itertools.count(1)
        self._wakes: list[float] = [0.0]
        self._complaints = self._refusals = 0
        self._stopping = False
        self._outside: Outside | None = None

    def stop(self) -> None:
        """Leave the loop after the present batch."""
        self._stopping = True

    def run(self, outside: Outside | None = None) -> None:
        """Serve until `stop`; `outside` makes the calls of the core, if it makes any."""
        self._outside = outside
        try:
            while not self._stopping:
                self._perform(self._effects_of(self._events()))
            if self._linked:
                self._perform(self._session.farewell(self._progress()))
        finally:
            self._socket.close(linger=200)
            self._context.term()

    def _events(self) -> Iterator[Event]:
        now = clock.monotonic()
        patience = min(LONGEST_SLEEP, max(0.0, self._wakes[0] - now)) if self._wakes else LONGEST_SLEEP
        self._socket.set(RCVTIMEO, int(patience * 1000) + (patience > 0))
        flags, self._weight = 0, 0
        for _ in range(BATCH):
            if self._weight > self._limits.batch:
                break
            try:
                peer, frames = receive(self._socket, flags)
            except zmq.Again:
                break
            flags = DONTWAIT
            if len(frames) > 1:
                self._weight += sum(map(len, frames))
            if (event := self._heard(peer, frames)) is not None:
                yield event
        if self._outside is not None:
            yield from self._outside.returned()
        yield Tick()

    def _heard(self, peer: bytes, frames: list[zmq.Frame]) -> Heard | None:
        try:
            letter = codec.decode(contents(frames))
        except UnknownKind as error:
            self._send(Send(peer, Unsupported(kind=error.kind[: codec.MAX_KIND]), error.message_id))
        except WireError as error:
            self._complaints += 1
            if self._complaints & (self._complaints - 1) == 0:  # the 1st, 2nd, 4th, 8th …: nobody can flood the log
                self._log.warning("not understood", reason=repr(str(error))[:200], count=self._complaints)
        else:
            if self._authenticator is None or peer in self._links or not (why := self._not_theirs(frames[0], letter.message)):
                return Heard(peer, letter.message, letter.id, letter.reply_to, letter.arrays)
            self._send(Send(peer, Refused(reason=why), letter.id))
        return None

    def _not_theirs(self, frame: zmq.Frame, message: Message) -> str:
        """Return why the sender may not send this message, or "": by the key of its connection, whatever name it gives."""
        assert self._limits.guard is not None
        why = self._limits.guard.refusal(str(frame.get("User-Id")), type(message))
        if why:
            self._refusals += 1
            if self._refusals & (self._refusals - 1) == 0:
                self._log.warning("refused", reason=repr(why)[:200], count=self._refusals)
        return why

    def _effects_of(self, events: Iterator[Event]) -> list[Effect]:
        outgoing: list[Effect] = []
        for event in events:
            now = clock.monotonic()
            if isinstance(event, Heard) and event.peer == TOPOLOGY:
                self._session.heard(event.message)
                continue
            if isinstance(event, Tick):
                if self._authenticator is not None:
                    self._authenticator.check()
                while self._wakes and self._wakes[0] <= now:
                    heapq.heappop(self._wakes)
                if self._linked and self._session.due(now):
                    outgoing += self._session.tick(now, "running", self._progress(), self._why())
            self._apply(self._machine.handle(event, now), outgoing)
        return outgoing

    def _progress(self) -> dict[str, float]:
        kept = self._store.progress() if self._store else {}
        return {**self._machine.progress(), **kept, "open_fds": len(os.listdir("/proc/self/fd"))}

    def _why(self) -> str:
        full = self._store.room(0) if self._store else ""
        return "; ".join(filter(None, (full, self._machine.why())))

    def _apply(self, effects: list[Effect], outgoing: list[Effect]) -> None:
        """Write rows into the open transaction at once, so that the core can read them; everything else waits for the commit."""
        store = self._store
        for effect in effects:
            if type(effect) is Keep:
                assert store is not None, "a core without a spool wants to keep something"
                store.keep(effect.table, effect.key, effect.body)
            elif type(effect) is Forget:
                assert store is not None, "a core without a spool wants to forget something"
                store.forget(effect.table, effect.key)
            else:
                if type(effect) is Send and effect.arrays:
                    self._weight += sum(array.nbytes for array in effect.arrays.values())
                outgoing.append(effect)

    def _perform(self, effects: list[Effect]) -> None:
        if self._store is not None:
            self._store.commit()
        for effect in effects:
            if type(effect) is Send:
                self._send(effect)
            elif type(effect) is WakeAt:
                heapq.heappush(self._wakes, effect.deadline)
            elif isinstance(effect, Call):
                assert self._outside is not None, "a core without an outside wants to call"
                self._outside.call(effect)
            else:
                raise TypeError(f"{type(self._machine).__name__} returned {type(effect).__name__}, which is no effect")

    def _send(self, effect: Send) -> None:
        counted = bool(effect.arrays and effect.reply_to)
        if counted and (full := self._unread.refusal(effect.peer, sum(array.nbytes for array in effect.arrays.values()))):
            effect, counted = Send(effect.peer, Refused(reason=full, retry_after=BUSY), effect.reply_to), False
        parts = [effect.peer, *codec.encode(effect.message, effect.id or next(self._ids), effect.reply_to, effect.arrays)]
        try:
            if counted:
                self._unread.note(effect.peer, send_tracked(self._socket, parts))
            else:
                post(self._socket, parts)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            rest: list[Effect] = []
            self._apply(self._machine.handle(Unreachable(effect.peer), clock.monotonic()), rest)
            self._perform(rest)


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
