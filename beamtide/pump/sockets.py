"""Sockets: how they are made, with which options, and how a message goes through one.

Source of the options: zmq_setsockopt(3), ADR 0002, ADR 0013. Arithmetic with pyzmq's flags costs more than receiving a message,
so they are plain numbers here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from beamtide.errors import BadInput
from beamtide.pump.authentication import secure_client, secure_server
from beamtide.pump.unread_answers import Unread
from beamtide.security.guard import Guard

MAX_MESSAGE = 256 << 20
CONTROL_MESSAGE = 1 << 20
HANDSHAKE = 10_000
"""Milliseconds for a handshake: a connection without a key by then is closed."""
WORTH_SHARING = 64 << 10
"""A part of at least so many bytes is sent without copying it; a smaller one is cheaper to copy."""
_send = zmq.backend.Socket.send
"""The method `send` without pyzmq's check of the socket's class."""
DONTWAIT, MORE, RCVTIMEO = int(zmq.DONTWAIT), int(zmq.SNDMORE), int(zmq.RCVTIMEO)
DONTWAIT_MORE = DONTWAIT | MORE


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a service takes in: at a limit nothing is dropped, the sender has to wait."""

    message: int = CONTROL_MESSAGE
    """Bytes of the largest message; a peer that sends a larger one is disconnected."""
    queued: int = 1000
    """Messages under way to or from one peer. ZeroMQ counts them per peer, whatever their size."""
    batch: int = 128 << 20
    """Bytes of messages, received and to be sent, after which a batch ends."""
    unread: int = 512 << 20
    """Bytes of unread answers of all peers together."""
    guard: Guard | None = None
    """Which keys are accepted; None: everybody who can reach the address."""


ROOMY = Limits(MAX_MESSAGE)


def receive(socket: "zmq.Socket[bytes]", flags: int) -> tuple[bytes, list[zmq.Frame]]:
    """Return who sent the next message of a ROUTER, and its parts.

    As `recv_multipart`, but asks each part whether more follow: the socket takes twice as long.
    """
    peer = socket.recv(flags)
    frame = socket.recv(flags, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(flags, copy=False)
        frames.append(frame)
    return peer, frames


def contents(frames: list[zmq.Frame]) -> list[bytes | memoryview]:
    """Return the contents of the parts of a message: a copy where that is cheaper than a view."""
    if len(frames) == 1 and len(frames[0]) < WORTH_SHARING:
        return [frames[0].bytes]
    return [frame.buffer for frame in frames]


def post(socket: "zmq.Socket[bytes]", parts: list[Any]) -> None:
    """Send a message without waiting. As `send_multipart`, without its three checks of each part."""
    last = parts.pop()
    for part in parts:
        _send(socket, part, DONTWAIT_MORE, len(part) < WORTH_SHARING)
    _send(socket, last, DONTWAIT, len(last) < WORTH_SHARING)


def send_tracked(socket: "zmq.Socket[bytes]", parts: list[Any]) -> list[Unread]:
    """As `post`; return the size of each large part, with a tracker that tells when the peer has taken it."""
    tracked: list[Unread] = []
    for number, part in enumerate(parts, 1):
        large, flags = len(part) >= WORTH_SHARING, DONTWAIT_MORE if number < len(parts) else DONTWAIT
        tracker = _send(socket, part, flags, not large, large)
        tracked += [(tracker, len(part))] if large else []
    return tracked


def tune(socket: "zmq.Socket[bytes]", limits: Limits = ROOMY) -> None:
    """Set what every socket of ours has: limits, heartbeats, pauses between two attempts to connect."""
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
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)


def router(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, links: Mapping[bytes, str], limits: Limits
) -> "zmq.Socket[bytes]":
    """Return the socket of a service: connected to `links` (peer -> address), listening at `address`; BadInput if it cannot.

    Links are connected first, so that no client can take their names.
    """
    socket = context.socket(zmq.ROUTER)
    tune(socket, limits)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.BACKLOG, 4096)
    if limits.guard is not None:
        secure_client(socket, limits.guard.identity)
    for peer, other in links.items():
        socket.setsockopt(zmq.CONNECT_ROUTING_ID, peer)
        socket.connect(other)
    if limits.guard is not None:
        secure_server(socket, limits.guard)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        raise BadInput(
            f"cannot listen on {address}: {error.strerror}. Is another Beamtide running there? "
            "Stop it, or choose other ports under network.ports in the site file."
        ) from error
    return socket
