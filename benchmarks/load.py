"""Simulated workers, and the distributor that feeds them, in one thread of one process.

Each worker has a connection of its own and does what a real one does, one thing after the other: LeaseRequest, Lease, TaskDone,
Ok, and again. The distributor speaks the real pull protocol; it has a task whenever one is due. What is measured is the service
between the two, so this side is kept as cheap as Python allows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from beamtide import clock, codec
from beamtide.messages.base import Digest, PipelineName, ScanId
from beamtide.messages.tasks import Entry, InputFile, Lease, LeaseRequest, Pulled, PullRequest, Task, TaskDone
from beamtide.pump.authentication import secure_client
from beamtide.security.key_files import Identity
from beamtide.task_id import task_id

DIGEST = Digest("5" * 64)
_lease = msgspec.msgpack.Decoder(Lease).decode
_BODY = codec.ENVELOPE.size + len("Lease")
Socket = Any


def task_of(number: int, pipeline: str = "encoders", scan: str = "scan_00001") -> Task:
    """Return the task of one index: about 200 bytes on the wire."""
    source = InputFile(root="raw", path=f"{scan}/detector/{number:06d}.h5", format="hdf5", first=0, last=1)
    return Task(
        id=task_id(scan, pipeline, DIGEST, number, number + 1),
        scan=ScanId(scan),
        pipeline=PipelineName(pipeline),
        modality="encoders",
        start=number,
        stop=number + 1,
        inputs=(source,),
        settings=DIGEST,
    )


def kind_in(part: bytes) -> bytes:
    """Return the kind of a message by its first part; messages are counted here, not read."""
    return part[codec.ENVELOPE.size : codec.ENVELOPE.size + part[codec.ENVELOPE.size - 1]]


class Distributor:
    """Answers pulls; `rate` tasks per second become due, or as many as are wanted."""

    def __init__(self, context: "zmq.Context[Socket]", address: str, identity: Identity) -> None:
        self.socket: Socket = context.socket(zmq.ROUTER)
        self.socket.curve_server = True
        self.socket.curve_secretkey = identity.secret.encode()
        self.socket.bind(address)
        self._pulls: list[tuple[bytes, int, PullRequest]] = []
        self._sent = 0
        self._first = 0
        self._began = self._rate = math.inf

    def pace(self, rate: float) -> None:
        """From now on, `rate` tasks per second become due (infinity: as many as are wanted)."""
        self._began, self._first, self._rate = clock.monotonic(), self._sent, rate
        self.serve()

    def due(self, number: int) -> float:
        """Return when a task became due."""
        return self._began + (number - self._first) / self._rate

    def heard(self) -> None:
        """Take one pull and answer what can be answered."""
        peer, *parts = self.socket.recv_multipart()
        letter = codec.decode(parts)
        if isinstance(letter.message, PullRequest):
            self._pulls = [(peer, letter.id, letter.message)]  # a newer question supersedes the last
            self.serve()

    def serve(self) -> None:
        """Answer the pull under way if there is something to say."""
        for peer, number, pull in self._pulls:
            room = pull.credit
            if self._rate < math.inf:
                room = min(room, self._first + int(self._rate * (clock.monotonic() - self._began)) - pull.after)
            if room > 0 or pull.closed:
                self._pulls = []
                self._answer(peer, number, pull, max(0, room))

    def _answer(self, peer: bytes, number: int, pull: PullRequest, room: int) -> None:
        entries = tuple(Entry(seq=seq + 1, task=task_of(seq)) for seq in range(pull.after, pull.after + room))
        self._sent = max(self._sent, pull.after + room)
        confirmed = tuple(verdict.task for verdict in pull.closed)
        answer = Pulled(pipeline=pull.pipeline, entries=entries, confirmed=confirmed)
        self.socket.send_multipart([peer, *codec.encode(answer, 1, number)])


@dataclass(slots=True)
class Tally:
    """What happened between `begin` and `end`: leases (seconds waited), ages of tasks when leased, tasks done."""

    waits: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    done: int = 0
    seconds: float = 0.0
    service_cpu: float = 0.0
    own_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.done / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU of the service per task in microseconds."""
        return 1e6 * self.service_cpu / max(1, self.done)


@dataclass(frozen=True, slots=True)
class Place:
    """Where workers go, and the key that they show there."""

    context: "zmq.Context[Socket]"
    address: str
    identity: Identity | None

    def connected(self) -> Socket:
        """Return a new connection."""
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        if self.identity is not None:
            secure_client(socket, self.identity)
        socket.connect(self.address)
        return socket


class Workers:
    """`count` workers at one buffer."""

    def __init__(self, place: "Place", count: int, distributor: Distributor) -> None:
        self._distributor, self._poller, self._asked = distributor, zmq.Poller(), dict[Socket, float]()
        self._poller.register(distributor.socket, zmq.POLLIN)
        self._requests: dict[Socket, list[bytes]] = {}
        for number in range(count):
            socket = place.connected()
            self._poller.register(socket, zmq.POLLIN)
            request = LeaseRequest(worker=f"node-{number}", job="job", wait=30.0)
            self._requests[socket] = [bytes(part) for part in codec.encode(request, 7)]
        self.tally = Tally()
        self._stopping = False

    def run(self, seconds: float, cpu: Callable[[], tuple[float, float]], warm: float = 0.5) -> Tally:
        """Work for `warm` seconds, then measure for `seconds`, then let everyone finish."""
        for socket in self._requests:
            self._ask(socket)
        self._until(clock.monotonic() + warm)
        self.tally, began, (service, own) = Tally(), clock.monotonic(), cpu()
        self._until(began + seconds)
        tally, (service_end, own_end) = self.tally, cpu()
        tally.seconds, tally.service_cpu, tally.own_cpu = clock.monotonic() - began, service_end - service, own_end - own
        self.tally, self._stopping = Tally(), True
        self._until(clock.monotonic() + 2.0)
        for socket in self._requests:
            socket.close()
        return tally

    def _ask(self, socket: Socket) -> None:
        if self._stopping:
            self._asked.pop(socket, None)
        else:
            self._asked[socket] = clock.monotonic()
            socket.send_multipart(self._requests[socket])

    def _until(self, end: float) -> None:
        while clock.monotonic() < end and (self._asked or not self._stopping):
            for socket, _ in self._poller.poll(1):
                if socket is self._distributor.socket:
                    self._distributor.heard()
                else:
                    self._heard(socket)
            self._distributor.serve()

    def _heard(self, socket: Socket) -> None:
        part = socket.recv()
        kind = kind_in(part)
        if kind == b"Lease":
            now = clock.monotonic()
            lease = _lease(part[_BODY:])
            self.tally.waits.append(now - self._asked[socket])
            self.tally.ages.append(now - self._distributor.due(lease.task.start))
            done = TaskDone(worker="node", task=lease.task.id, attempt=lease.attempt, seconds=0.001)
            socket.send_multipart(codec.encode(done, 8))
        else:
            self.tally.done += kind == b"Ok"
            self._ask(socket)


def echoes(place: "Place", count: int, seconds: float, cpu: Callable[[], float]) -> Tally:
    """Return what `count` clients get from a raw echo of 200 bytes; `done` counts pairs of echoes."""
    poller, sockets, message = zmq.Poller(), [place.connected() for _ in range(count)], bytes(200)
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
        socket.send(message)
    tally, warm = Tally(), clock.monotonic() + 0.3
    began, start, echoed = math.inf, 0.0, 0
    while (now := clock.monotonic()) < began + seconds or began == math.inf:
        if began == math.inf and now > warm:
            began, start, echoed = now, cpu(), 0
        for socket, _ in poller.poll(1000):
            socket.recv()
            socket.send(message)
            echoed += 1
    tally.done, tally.seconds, tally.service_cpu = echoed // 2, clock.monotonic() - began, cpu() - start
    for socket in sockets:
        socket.close()
    return tally
