"""A thousand workers that lose their buffer at once, come back at once and leave at once (F13); descriptors come back too."""

import pathlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from beamtide import clock, codec
from beamtide.config.models import LeaseConfig
from beamtide.messages.base import Message, Ok
from beamtide.messages.tasks import Lease, LeaseRequest, SubmitRequest, TaskDone
from beamtide.pump import Caller
from tests.faults import load
from tests.faults.fork_server import ForkServer

pytestmark = pytest.mark.system
CROWD = 1000


class Crowd:
    """Workers, each with a connection of its own."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> None:
        self.poller, self.sockets = zmq.Poller(), dict[zmq.Socket[bytes], str]()
        for number in range(CROWD):
            socket = context.socket(zmq.DEALER)
            socket.linger, socket.immediate = 0, 1
            socket.setsockopt(zmq.RECONNECT_IVL, 50)
            socket.connect(address)
            self.sockets[socket] = f"w{number}"
            self.poller.register(socket, zmq.POLLIN)

    def all(self, question: dict[str, Message], patience: float = 30.0) -> dict[str, Message]:
        """Everybody asks, again after a second of silence as workers do; return all answers."""
        answers: dict[str, Message] = {}
        end = clock.monotonic() + patience
        while len(answers) < len(question):
            assert clock.monotonic() < end, f"{len(question) - len(answers)} of {CROWD} were not answered in {patience} s"
            for socket, name in self.sockets.items():
                if name in question and name not in answers:
                    with_id = codec.encode(question[name], 7)
                    try:
                        socket.send_multipart(with_id, zmq.DONTWAIT)
                    except zmq.Again:  # not connected again yet
                        continue
            again = clock.monotonic() + 1.0
            while len(answers) < len(question) and clock.monotonic() < again:
                for socket, _ in self.poller.poll(50):
                    answers[self.sockets[socket]] = codec.decode(socket.recv_multipart()).message
        return answers


@contextmanager
def crowd(address: str) -> Iterator[Crowd]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6 * CROWD:
        pytest.skip(f"{CROWD} sockets in one process need {6 * CROWD} descriptors, and the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.max_sockets = 2 * CROWD
    try:
        yield Crowd(context, address)
    finally:
        context.destroy(linger=0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(pid: int) -> int:
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.long
def test_a_thousand_workers_come_back_at_once(tmp_path: pathlib.Path) -> None:
    deployment = load.site(tmp_path, LeaseConfig(ttl=60.0))
    tasks = [load.task(f"scan_{scan}", "p", start, start + 1) for scan in range(CROWD // 50) for start in range(50)]
    with ForkServer(deployment, tmp_path) as forks, Caller() as caller:
        _, pid = forks.start("distributor", "buffer.p")
        for first in range(0, CROWD, 200):
            request = SubmitRequest(tasks=tuple(tasks[first : first + 200]))
            caller.ask(deployment.address("distributor"), request, Ok, patience=30)
        address = deployment.address("buffer.p")
        with crowd(address) as workers:
            ask = {name: LeaseRequest(worker=name, job="j", wait=20.0) for name in workers.sockets.values()}
            first_leases = workers.all(ask)
            pid = forks.restart("buffer.p")
            began = clock.monotonic()
            leases = workers.all(ask)
            print(f"{CROWD} workers had their leases again {clock.monotonic() - began:.1f} s after the buffer was killed")
            assert all(isinstance(lease, Lease) for lease in leases.values())
            assert leases == first_leases, "somebody got another task than before, or another attempt"
            assert len({lease.task.id for lease in leases.values() if isinstance(lease, Lease)}) == CROWD
            forks.restart("buffer.p")
            done = {
                name: TaskDone(worker=name, task=lease.task.id, attempt=lease.attempt)
                for name, lease in leases.items()
                if isinstance(lease, Lease)
            }
            assert set(map(type, workers.all(done).values())) == {Ok}
            pid = forks.restart("buffer.p")
            workers.all({name: LeaseRequest(worker=name, job="j", wait=0.0) for name in done})
            assert descriptors(pid) > CROWD
        end = clock.monotonic() + 30
        while descriptors(pid) > 60:
            assert clock.monotonic() < end, f"{descriptors(pid)} descriptors are open after all have left"
            clock.pause(0.05)
