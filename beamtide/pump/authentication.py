"""CURVE on sockets, and the authenticator that libzmq asks about every key (ZAP).

Theory: libzmq asks over an inproc socket before a connection is made; our thread answers from the guard's list, with the key
itself as user id, which then comes with each message. `ZAP_ENFORCE_DOMAIN` makes libzmq refuse everybody when nobody answers,
so a thread that dies closes the door; the loop notices and ends the process, which is started again. A stranger with a random
key knocks once at every start: if the door opens, the service does not.

Source: ZeroMQ RFC 27 (ZAP 1.0), RFC 25 (CURVE); reliability study 3.1.
"""

import threading

import zmq
from zmq.utils import z85

from beamtide.errors import Broken
from beamtide.security.guard import Guard
from beamtide.security.key_files import Identity

DOMAIN = b"beamtide"
ADDRESS = "inproc://zeromq.zap.01"
LONGEST_KNOCK = 5000
"""Milliseconds for which the first stranger may wait for its refusal."""
Socket = zmq.Socket[bytes]


class Authenticator:
    """Answers libzmq's questions of one context, in a thread."""

    def __init__(self, context: "zmq.Context[Socket]", guard: Guard) -> None:
        import structlog  # here, because workers have no gatekeeper, and their start should not wait for it

        self._guard, self._refused, self._log = guard, 0, structlog.get_logger()
        self._socket: Socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(ADDRESS)
        self._thread = threading.Thread(target=self._serve, name="gatekeeper", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Broken: the authenticator is dead, so nobody can come in any more."""
        if not self._thread.is_alive():
            raise Broken("the authenticator has died, and nobody is let in; this service starts again")

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
    """From now on the socket listens with our key, and only lets in whom the gatekeeper knows."""
    socket.curve_server = True
    socket.curve_secretkey = guard.identity.secret.encode()
    socket.curve_publickey = guard.identity.entry.public.encode()
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def secure_client(socket: Socket, identity: Identity) -> None:
    """From now on the socket connects with this key, to services with the key that it names."""
    socket.curve_server = False
    socket.curve_secretkey = identity.secret.encode()
    socket.curve_publickey = identity.entry.public.encode()
    socket.curve_serverkey = identity.server.encode()


def self_test(context: "zmq.Context[Socket]", address: str, guard: Guard) -> None:
    """Be a stranger at our own door; Broken if it opens."""
    from zmq.utils.monitor import recv_monitor_message  # here, because it loads asyncio

    public, secret = zmq.curve_keypair()
    stranger: Socket = context.socket(zmq.DEALER)
    stranger.linger = 0
    stranger.curve_publickey, stranger.curve_secretkey = public, secret
    stranger.curve_serverkey = guard.identity.server.encode()
    events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    monitor = stranger.get_monitor_socket(events)
    try:
        stranger.connect(address)
        if not monitor.poll(LONGEST_KNOCK):
            raise Broken(f"a stranger at {address} got no answer; the authenticator does not work")
        if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise Broken(f"a stranger with a random key was let in at {address}; nothing is served like this")
    finally:
        stranger.disable_monitor()
        monitor.close(linger=0)
        stranger.close()


def new_pair() -> tuple[str, str]:
    """Return a public and a secret key, as Z85 text."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()
