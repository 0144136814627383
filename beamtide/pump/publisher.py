"""A PUB stream on this machine for viewers of others, which know nothing of our messages and keys."""

from collections.abc import Iterable
from typing import Self

import zmq

from beamtide.errors import BadInput

QUEUED = 4
"""Messages that wait for a slow viewer; it misses the others."""


class Publisher:
    """A PUB socket at an address of the loopback; BadInput if the address is in use."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.linger = 0
        self._socket.set_hwm(QUEUED)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise BadInput(f"cannot listen on {address}: {error.strerror}; choose another --port") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, messages: Iterable[list[bytes]]) -> None:
        """Send messages to all viewers; never waits."""
        for message in messages:
            self._socket.send_multipart(message)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()
