"""The only file that speaks ZeroMQ: it moves parts between sockets, the spool and a core.

A service has exactly one socket, a ROUTER that both binds (for those who come to us) and connects (for those we go to; such
a peer is `machine.link(name)`). So the loop is: block in `recv` until something comes or a deadline passes, drain without
waiting, let the core handle it all, one commit, send. Measured: a poller in front of the socket triples the latency of
single messages, asyncio costs three to five times the CPU per message (ADR 0002).

`Caller` is the other end for those without a core: workers, commands and scripts ask one question and wait for its answer.
"""

import contextlib
import heapq
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import structlog
import zmq

from beamtide import clock, codec
from beamtide.errors import BadInput, NoAnswer, UnknownKind, WireError
from beamtide.machine import (
    Arrays,
    Effect,
    Event,
    Forget,
    Heard,
    Keep,
    Machine,
    Parts,
    Send,
    Shelf,
    Tick,
    Unreachable,
    WakeAt,
    link,
)
from beamtide.messages import Message, Refused, Unsupported
from beamtide.messages.base import Handle
from beamtide.session import Session

BATCH = 256
MAX_MESSAGE = 256 << 20
CONTROL_MESSAGE = 1 << 20
LONGEST_SLEEP = 1.0
SILENCE = 2.0
"""A peer that says nothing for so long (seconds), beyond the wait that it was allowed, is asked again."""
SLOWEST = 10e6
"""Bytes per second that the slowest way to a service still moves."""
WORTH_SHARING = 64 << 10
"""A part of so many bytes is lent to ZeroMQ; a smaller one is cheaper to copy."""
DONTWAIT, MORE = int(zmq.DONTWAIT), int(zmq.SNDMORE)
"""As plain numbers: arithmetic with pyzmq's flags costs more than receiving a message."""
ROWS = (Keep, Forget)
Answer = TypeVar("Answer", bound=Message)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service takes in: nothing is dropped at a limit, whoever sends is held back."""

    message: int = CONTROL_MESSAGE
    """Bytes of the largest message; a peer that sends a larger one is cut off."""
    queued: int = 1000
    """Messages under way to or from one peer. ZeroMQ counts them per peer, whatever their size."""
    batch: int = 128 << 20
    """Bytes of messages, coming and going, after which a batch ends."""


class Store(Shelf, Protocol):
    """What the pump needs of a spool."""

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Insert or replace a row in the open transaction."""
        ...

    def forget(self, table: str, key: str) -> None:
        """Delete a row in the open transaction."""
        ...

    def commit(self) -> None:
        """Make the open transaction durable."""
        ...

    def progress(self) -> dict[str, float]:
        """Return what every status must show."""
        ...


class Pump:
    """Drives one core until it is told to stop."""

    def __init__(
        self,
        machine: Machine,
        session: Session,
        links: Mapping[str, str],
        store: Store | None = None,
        limits: Limits = Limits(MAX_MESSAGE),
    ) -> None:
        self._machine, self._session, self._store, self._limits = machine, session, store, limits
        self._weight = 0
        self._log = log.bind(component=session.card.name)
        self._context = zmq.Context()
        self._socket = _router(self._context, session.card.address, limits)
        for name, address in links.items():
            self._socket.setsockopt(zmq.CONNECT_ROUTING_ID, link(name))
            self._socket.connect(address)
        self._linked = bool(links.get("topology"))
        self._ids = itertools.count(1)
        self._wakes: list[float] = [0.0]
        self._complaints = 0
        self._stopping = False

    def stop(self) -> None:
        """Leave the loop after the batch in work."""
        self._stopping = True

    def run(self, after_batch: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`; `after_batch` runs after each batch, for a shell with work of its own."""
        try:
            while not self._stopping:
                self._perform(self._effects_of(self._events()))
                after_batch()
            if self._linked:
                self._perform(self._session.farewell(self._progress()))
        finally:
            self._socket.close(linger=200)
            self._context.term()

    def _events(self) -> Iterator[Event]:
        now = clock.monotonic()
        patience = min(LONGEST_SLEEP, max(0.0, self._wakes[0] - now)) if self._wakes else LONGEST_SLEEP
        self._socket.rcvtimeo = int(patience * 1000) + (patience > 0)
        flags, self._weight = 0, 0
        for _ in range(BATCH):
            if self._weight > self._limits.batch:
                break
            try:
                frames = _receive(self._socket, flags)
            except zmq.Again:
                break
            flags = DONTWAIT
            self._weight += sum(len(frame) for frame in frames[3:])
            if (event := self._heard(frames)) is not None:
                yield event
        yield Tick()

    def _heard(self, frames: list[zmq.Frame]) -> Heard | None:
        peer, parts = frames[0].bytes, [frame.buffer for frame in frames[1:]]
        try:
            letter = codec.decode(parts)
        except UnknownKind as error:
            self._send(Send(peer, Unsupported(kind=error.kind[: codec.MAX_KIND]), error.message_id))
        except WireError as error:
            self._complaints += 1
            if self._complaints & (self._complaints - 1) == 0:  # the 1st, 2nd, 4th, 8th … so that nobody can flood the log
                self._log.warning("not understood", reason=repr(str(error))[:200], count=self._complaints)
        else:
            return Heard(peer, letter.message, letter.id, letter.reply_to, letter.arrays)
        return None

    def _effects_of(self, events: Iterator[Event]) -> list[Effect]:
        outgoing: list[Effect] = []
        topology = link("topology")
        for event in events:
            now = clock.monotonic()
            if isinstance(event, Heard) and event.peer == topology:
                self._session.heard(event.message)
                continue
            if isinstance(event, Tick):
                self._wakes = [wake for wake in self._wakes if wake > now]
                heapq.heapify(self._wakes)
                if self._linked and self._session.due(now):
                    outgoing += self._session.tick(now, "running", self._progress(), self._why())
            outgoing += self._apply(self._machine.handle(event, now))
        return outgoing

    def _progress(self) -> dict[str, float]:
        kept = self._store.progress() if self._store else {}
        return {**self._machine.progress(), **kept, "open_fds": len(os.listdir("/proc/self/fd"))}

    def _why(self) -> str:
        full = self._store.room(0) if self._store else ""
        return "; ".join(filter(None, (full, self._machine.why())))

    def _apply(self, effects: list[Effect]) -> list[Effect]:
        """Put rows into the open transaction at once, so that the core can read them back; return what waits for the commit."""
        rest: list[Effect] = []
        for effect in effects:
            if isinstance(effect, ROWS):
                assert self._store is not None, "a core without a spool wants to keep something"
                if isinstance(effect, Keep):
                    self._store.keep(effect.table, effect.key, effect.body)
                else:
                    self._store.forget(effect.table, effect.key)
            else:
                if isinstance(effect, Send) and effect.arrays:
                    self._weight += sum(array.nbytes for array in effect.arrays.values())
                rest.append(effect)
        return rest

    def _perform(self, effects: list[Effect]) -> None:
        if self._store is not None:
            self._store.commit()
        for effect in effects:
            if isinstance(effect, WakeAt):
                heapq.heappush(self._wakes, effect.deadline)
            elif isinstance(effect, Send):
                self._send(effect)

    def _send(self, effect: Send) -> None:
        parts = codec.encode(effect.message, next(self._ids), effect.reply_to, effect.arrays)
        try:
            _post(self._socket, [effect.peer, *parts])
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            gone = self._machine.handle(Unreachable(effect.peer), clock.monotonic())
            self._perform(self._apply(gone))


class Caller:
    """Asks services and waits: one DEALER socket per address, made anew after silence (lazy pirate). Not for threads to share."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._ids = itertools.count(int.from_bytes(os.urandom(6)) << 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets; what was not sent within 0.2 s is dropped."""
        for socket in self._sockets.values():
            socket.close(linger=200)
        self._sockets.clear()
        self._context.term()

    def ask(
        self,
        address: str,
        message: Message,
        expect: type[Answer],
        *,
        arrays: Arrays | None = None,
        patience: float = 10.0,
    ) -> Answer:
        """Send a request and return its answer.

        A request that stays unanswered is sent again over a new socket, under the same id, until `patience` (seconds) is
        over; every request of this project may be repeated without harm. NoAnswer: it was over; BadInput: it was refused.
        """
        return self.converse(address, message, expect, arrays=arrays, patience=patience)[0]

    def converse(
        self,
        address: str,
        message: Message,
        expect: type[Answer],
        *,
        arrays: Arrays | None = None,
        patience: float = 10.0,
    ) -> tuple[Answer, Arrays]:
        """Like `ask`, and return the arrays of the answer as well."""
        parts = codec.encode(message, message_id := next(self._ids), arrays=arrays)
        end, silence, busy = clock.monotonic() + patience, _expected_silence(message, parts), ""
        while (now := clock.monotonic()) < end:
            letter = self._once(address, parts, message_id, min(end - now, silence))
            if letter is None:
                self._sockets.pop(address).close(linger=0)
            elif isinstance(letter.message, expect):
                return letter.message, letter.arrays
            elif isinstance(letter.message, Refused) and letter.message.retry_after > 0:
                busy = letter.message.reason
                clock.pause(min(letter.message.retry_after, max(0.0, end - clock.monotonic())))
            elif isinstance(letter.message, Refused):
                raise BadInput(letter.message.reason)
            else:
                raise WireError(f"{address} answered {type(letter.message).__name__}, expected {expect.__name__}")
        if busy:
            raise NoAnswer(f"{address} cannot take {type(message).__name__} now: {busy}")
        raise NoAnswer(f"{address} did not answer {type(message).__name__} within {patience:.0f} s: is the service running?")

    def tell(self, address: str, message: Message) -> list[codec.Letter]:
        """Send a message without waiting, and return the answers to earlier ones."""
        socket = self._sockets.get(address) or self._open(address)
        letters = []
        with contextlib.suppress(zmq.Again):
            while True:
                letters.append(codec.decode(socket.recv_multipart(flags=zmq.DONTWAIT)))
        with contextlib.suppress(zmq.Again):
            socket.send_multipart(codec.encode(message, next(self._ids)), flags=zmq.DONTWAIT, copy=False)
        return letters

    def _once(self, address: str, parts: list[Any], message_id: int, seconds: float) -> codec.Letter | None:
        socket = self._sockets.get(address) or self._open(address)
        end = clock.monotonic() + seconds
        with contextlib.suppress(zmq.Again):
            socket.send_multipart(parts, copy=False)
            while (left := end - clock.monotonic()) > 0:
                socket.rcvtimeo = int(left * 1000) + 1
                letter = codec.decode([frame.buffer for frame in socket.recv_multipart(copy=False)])
                if letter.reply_to == message_id:
                    return letter
        return None

    def _open(self, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        _tune(socket)
        socket.sndtimeo = 1000
        socket.connect(address)
        self._sockets[address] = socket
        return socket


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())


def _expected_silence(message: Message, parts: list[Any]) -> float:
    """Return for how many seconds no answer is no news: the wait that was asked for, and the time to move what is sent."""
    return float(getattr(message, "wait", 0.0)) + SILENCE + sum(len(part) for part in parts) / SLOWEST


def _receive(socket: "zmq.Socket[bytes]", flags: int) -> list[zmq.Frame]:
    """Return the next message. As `recv_multipart`, but asks each frame whether more follow: the socket takes twice as long."""
    frames = [socket.recv(flags, copy=False)]
    while frames[-1].more:
        frames.append(socket.recv(flags, copy=False))
    return frames


def _post(socket: "zmq.Socket[bytes]", parts: list[Any]) -> None:
    """Send a message without waiting. As `send_multipart`, without looking at each part three times."""
    last = parts.pop()
    for part in parts:
        socket.send(part, DONTWAIT | MORE, copy=len(part) < WORTH_SHARING)
    socket.send(last, DONTWAIT, copy=len(last) < WORTH_SHARING)


def _tune(socket: "zmq.Socket[bytes]", limits: Limits = Limits(MAX_MESSAGE)) -> None:
    socket.linger = 0
    socket.setsockopt(zmq.MAXMSGSIZE, limits.message)
    socket.setsockopt(zmq.SNDHWM, limits.queued)
    socket.setsockopt(zmq.RCVHWM, limits.queued)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 15000)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)


def _router(context: "zmq.Context[zmq.Socket[bytes]]", address: str, limits: Limits) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.ROUTER)
    _tune(socket, limits)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, 4096)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        context.term()
        raise BadInput(
            f"cannot listen on {address}: {error.strerror}. Is another Beamtide running there? "
            "Stop it, or choose other ports under network.ports in the site file."
        ) from error
    return socket
