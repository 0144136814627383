"""The client side of the services: workers, commands and scripts send one request and wait for its answer.

Theory: a request without an answer is sent again over a new socket (the "lazy pirate" pattern of the ZeroMQ guide), because a
socket cannot say why no answer comes. Every request of this project may be repeated without harm.

Clock policy: `beamtide.clock.monotonic`, durations in seconds.
"""

import contextlib
import itertools
import os
from typing import Any, Self, TypeVar

import zmq

from beamtide import clock, codec
from beamtide.errors import BadInput, Busy, NoAnswer, WireError
from beamtide.machine import Arrays
from beamtide.messages import Message, Refused
from beamtide.pump.authentication import secure_client
from beamtide.pump.sockets import tune
from beamtide.security.key_files import Identity

SILENCE = 2.0
"""After so many seconds without an answer, beyond the wait that the request allows, it is sent again."""
SLOWEST = 10e6
"""Bytes per second that even the slowest connection to a service moves."""
Answer = TypeVar("Answer", bound=Message)


class Caller:
    """Sends requests and waits: one DEALER socket per address, replaced when no answer comes. Not to be shared by threads."""

    def __init__(self, identity: Identity | None = None) -> None:
        self._context, self._identity = zmq.Context(), identity
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

    def connect(self, address: str) -> None:
        """Connect early to a service that will be asked later; it need not run yet."""
        if address not in self._sockets:
            self._open(address)

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
            raise Busy(f"{address} cannot take {type(message).__name__} now: {busy}")
        asked = (
            "is the service running?"
            if self._identity is None
            else f"does it run, and is {self._identity.entry.name} on its list?"
        )
        raise NoAnswer(f"{address} did not answer {type(message).__name__} within {patience:.0f} s: {asked}")

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
        tune(socket)
        socket.sndtimeo = 1000
        if self._identity is not None:
            secure_client(socket, self._identity)
        socket.connect(address)
        self._sockets[address] = socket
        return socket


def _expected_silence(message: Message, parts: list[Any]) -> float:
    """Return for how many seconds to wait for an answer: the wait that the request allows, and the time to transfer it."""
    return float(getattr(message, "wait", 0.0)) + SILENCE + sum(len(part) for part in parts) / SLOWEST
