"""The floor of every service: a ROUTER that sends back what it hears; `python -m benchmarks.echo ADDRESS` runs it."""

import sys

import zmq


def main(address: str) -> None:
    """Echo until killed: a blocking loop, nothing else."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        socket.send_multipart(socket.recv_multipart())


if __name__ == "__main__":
    main(sys.argv[1])
