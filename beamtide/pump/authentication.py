"""CURVE on sockets, and the authenticator that libzmq asks about every key (ZAP).

Theory: libzmq asks over an inproc socket before a connection is made; our thread answers from the guard's list, with the key
itself as user id, which then comes with each message. `ZAP_ENFORCE_DOMAIN` makes libzmq refuse every key when nobody answers,
so nobody gets in if the thread dies; the loop notices this and ends the process, which is started again.
Self-test: at every start the service connects to itself with an unknown key, and refuses to start if that key is accepted.

Source: ZeroMQ RFC 27 (ZAP 1.0), RFC 25 (CURVE).
"""

import threading

import zmq
from zmq.utils import z85

from beamtide.errors import Broken
from beamtide.security.guard import Guard
from beamtide.security.key_files import Identity

DOMAIN = b"beamtide"
ADDRESS = "inproc://zeromq.zap.01"
SELF_TEST_MS = 5000
"""Milliseconds within which the self-test must be answered."""
Socket = zmq.Socket[bytes]


class Authenticator:
    """Answers libzmq's questions of one context, in a thread."""

    def __init__(self, context: "zmq.Context[Socket]", guard: Guard) -> None:
        import structlog  # here, because workers have no authenticator, and their start should not wait for this import

        self._guard, self._refused, self._log = guard, 0, structlog.get_logger()
        self._socket: Socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(ADDRESS)
        self._thread = threading.Thread(target=self._serve, name="authenticator", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Broken: the authenticator thread has died, so no key is accepted any more."""
        if not self._thread.is_alive():
            raise Broken("the authenticator has died, so every key is refused; this service starts again")

    def _serve(self) -> None:
        try:
            while True:
                # peer, empty, version, request, domain, address, identity, mechanism, credentials (RFC 27)
                *envelope, _domain, _address, _identity, mechanism, key = (*self._socket.recv_multipart(), b"")[:9]
                public = z85.encode(key) if mechanism == b"CURVE" else b""
                entry = self._guard.entry(public.decode())
                if entry is None:
                    self._complain()
                code = (b"200", b"OK", public) if entry else (b"400", b"not on the list", b"")
                self._socket.send_multipart([*envelope, *code, b""])
        except zmq.ContextTerminated:
            pass
        finally:
            self._socket.close()

    def _complain(self) -> None:
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:
            self._log.warning(
                "a key was refused", count=self._refused, reason=self._guard.trouble or "it is not on the list, or over"
            )


def secure_server(socket: Socket, guard: Guard) -> None:
    """Make a socket listen with our key, and accept only keys that the authenticator knows."""
    socket.curve_server = True
    socket.curve_secretkey = guard.identity.secret.encode()
    socket.curve_publickey = guard.identity.entry.public.encode()
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def secure_client(socket: Socket, identity: Identity) -> None:
    """Make a socket connect with this key, to services that have the public key named in it."""
    socket.curve_server = False
    socket.curve_secretkey = identity.secret.encode()
    socket.curve_publickey = identity.entry.public.encode()
    socket.curve_serverkey = identity.server.encode()


def self_test(context: "zmq.Context[Socket]", address: str, guard: Guard) -> None:
    """Connect to `address` with an unknown key; Broken if it is accepted, or if nobody answers."""
    from zmq.utils.monitor import recv_monitor_message  # here, because it loads asyncio

    public, secret = zmq.curve_keypair()
    unknown: Socket = context.socket(zmq.DEALER)
    unknown.linger = 0
    unknown.curve_publickey, unknown.curve_secretkey = public, secret
    unknown.curve_serverkey = guard.identity.server.encode()
    events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    monitor = unknown.get_monitor_socket(events)
    try:
        unknown.connect(address)
        if not monitor.poll(SELF_TEST_MS):
            raise Broken(f"self-test at {address}: an unknown key got no answer; the authenticator does not work")
        if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise Broken(f"self-test at {address}: an unknown key was accepted, so this service does not start")
    finally:
        unknown.disable_monitor()
        monitor.close(linger=0)
        unknown.close()


def new_pair() -> tuple[str, str]:
    """Return a public and a secret key, as Z85 text."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
