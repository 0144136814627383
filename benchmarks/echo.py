"""The floor of every service: a ROUTER that sends back what it hears; `python -m benchmarks.echo ADDRESS [KEY]` runs it."""

import pathlib
import sys

import zmq

from beamtide.security.key_files import read_identity


def main(address: str, key: str = "") -> None:
    """Echo until killed: a blocking loop, nothing else."""
    socket = zmq.Context().socket(zmq.ROUTER)
    if key:
        identity = read_identity(pathlib.Path(key))
        socket.curve_server = True
        socket.curve_secretkey = identity.secret.encode()
    socket.bind(address)
    while True:
        socket.send_multipart(socket.recv_multipart())


if __name__ == "__main__":
    main(*sys.argv[1:])
