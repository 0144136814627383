"""The floor of every service: a ROUTER that sends back what it hears; `python -m benchmarks.echo ADDRESS [KEY [FILE]]` runs it.

With a FILE it is durable in the simplest way: all that waits is appended, synced once, and only then sent back.
"""

import os
import pathlib
import sys
from typing import Any

import zmq

from beamtide.security.key_files import read_identity


def main(address: str, key: str = "", file: str = "") -> None:
    """Echo until killed."""
    socket = zmq.Context().socket(zmq.ROUTER)
    if key:
        identity = read_identity(pathlib.Path(key))
        socket.curve_server = True
        socket.curve_secretkey = identity.secret.encode()
    socket.bind(address)
    if file:
        _durable(socket, file)
    while True:
        socket.send_multipart(socket.recv_multipart())


def _durable(socket: Any, path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        batch = [socket.recv_multipart()]
        try:
            while True:
                batch.append(socket.recv_multipart(flags=zmq.DONTWAIT))
        except zmq.Again:
            os.write(log, b"".join(message[-1] for message in batch))
            os.fdatasync(log)
        for message in batch:
            socket.send_multipart(message)


if __name__ == "__main__":
    main(*sys.argv[1:])
