"""How long a worker takes for one small XRF task, from the lease it is given to the `TaskDone` that comes back.

Ours is a child that the real nursery forked (`beamtide work`); the peer is the naive way, a Python process that imports and
configures the same kernel for one task; the floor is reading and fitting alone, in a process that is warm.
"""

import contextlib
import os
import pathlib
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import zmq

from beamline_side.hosts import embedded
from beamline_side.sources import simulate
from beamtide import clock, codec, settings, site
from beamtide.config import Deployment
from beamtide.messages import Ok
from beamtide.messages.base import PipelineName, ScanId, TaskId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import InputFile, Lease, LeaseRequest, Task, TaskDone
from beamtide.pump import Caller
from benchmarks import start_in_image
from benchmarks.measure import Beside, Book, scratch
from cluster_side.images import enter
from cluster_side.worker import inputs, life, nursery, recipe

POINTS = 20
TASKS, NAIVE = 60, 5
SCAN = Scan(id=ScanId("scan_00001"), shape=(1, POINTS), axes=("y", "x"))


def run(book: Book) -> None:
    """Measure a worker's life."""
    with scratch() as folder:
        deployment = embedded.prepare_demo(pathlib.Path(folder))
        simulate.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
        task = task_of(deployment)
        book.sync(pathlib.Path(folder))
        ours: list[float] = []
        free: list[float] = []
        naive: list[float] = []
        floor: list[float] = []
        for _ in range(NAIVE):  # interleaved
            naive.append(_naive(deployment, task))
            floor += _warm(deployment, task, TASKS // NAIVE)
            lives, gaps = forked(deployment, task, TASKS // NAIVE)
            ours += lives
            free += gaps
    peer = Beside("fresh Python process that imports, configures and does the task", naive)
    alone = Beside("reading and fitting alone, warm", floor)
    book.row("forked_worker_p50_ms", ours, "ms", "lower", peer=peer, floor=alone, notes={"spectra_per_task": POINTS})
    book.row("slot_free_to_lease_p50_ms", free, "ms", "lower")
    with scratch() as folder:
        book.row("slot_free_to_kernel_p50_ms", _to_kernel(pathlib.Path(folder)), "ms", "lower")
    start_in_image.run(book)


def task_of(deployment: Deployment) -> Task:
    """Return the one task of the simulated scan."""
    prepared = settings.document_for(deployment.pipelines["xrf"], site.shared_root(deployment))
    file = next((deployment.site.roots.raw / SCAN.id / simulate.DETECTOR).glob("*.nxs"))
    path = str(file.relative_to(deployment.site.roots.raw))
    return Task(
        id=TaskId("start"),
        scan=SCAN.id,
        pipeline=PipelineName("xrf"),
        modality="xrf",
        start=0,
        stop=POINTS,
        inputs=(InputFile(root="raw", path=path, format="p06_xspress3", first=0, last=POINTS),),
        settings=prepared.digest,
    )


def _naive(deployment: Deployment, task: Task) -> float:
    file = deployment.site.state / "task.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(task))
    began = clock.monotonic()
    command = [sys.executable, "-m", "benchmarks.naive", str(deployment.file), str(file)]
    subprocess.run(command, check=True)
    return 1e3 * (clock.monotonic() - began)


def _warm(deployment: Deployment, task: Task, times: int) -> list[float]:
    work = nursery.open_nursery(deployment, "xrf", "warm", 0.0, recipe.registered)
    assert work.ready is not None
    taken = []
    with Caller() as caller:
        for _ in range(times + 1):
            began = clock.monotonic()
            work.ready.kernel(inputs.read(task, deployment.site.roots, caller, deployment.address("sink"))[0])
            taken.append(1e3 * (clock.monotonic() - began))
    return taken[1:]


@dataclass(slots=True)
class _Beamline:
    """Buffer and sorter in one, as light as can be: a lease to whoever asks, `Ok` to everything else."""

    deployment: Deployment
    task: Task
    leased: dict[str, float] = field(default_factory=dict)
    taken: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    """How long a slot was free between two tasks, in ms."""
    ends: list[float] = field(default_factory=list)
    """When each task ended."""

    def serve(self, times: int) -> list[float]:
        """Hand out leases until `times` of them came back; return how long each took in ms."""
        with _routers(self.deployment) as sockets:
            poller = zmq.Poller()
            for socket in sockets:
                poller.register(socket, zmq.POLLIN)
            end = clock.monotonic() + 60.0
            while len(self.taken) < times and clock.monotonic() < end:
                for socket, _ in poller.poll(1000):
                    peer, *parts = socket.recv_multipart()
                    letter = codec.decode(parts)
                    socket.send_multipart([peer, *codec.encode(self._answer(letter.message), 1, letter.id)])
        assert len(self.taken) >= times, "the workers did not come"
        return self.taken[:times]

    def _answer(self, message: Any) -> Lease | Ok:
        now = clock.monotonic()
        if isinstance(message, TaskDone):
            self.taken.append(1e3 * (now - self.leased.pop(message.worker)))
            self.ends.append(now)
        elif isinstance(message, LeaseRequest):
            self.free += [1e3 * (now - self.ends[-1])] if self.ends else []
            self.leased[message.worker] = now
            return Lease(task=self.task, attempt=1, ttl=60.0)
        return Ok()


def forked(deployment: Deployment, task: Task, times: int) -> tuple[list[float], list[float]]:
    """Return the lives of `times` forked workers of one job, one after the other, and how long its slot was free in between."""
    job = _job(deployment, times + 1)
    try:
        beamline = _Beamline(deployment, task)
        return beamline.serve(times + 1)[1:], beamline.free
    finally:
        job.kill()
        job.wait()


def _to_kernel(folder: pathlib.Path) -> list[float]:
    """Return how long a slot was free until the kernel of its next task ran, frames read: of a job whose kernel tells when."""
    deployment = embedded.prepare_demo(folder)
    simulate.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
    (deployment.site.state / "run").mkdir(parents=True, exist_ok=True)
    work = nursery.open_nursery(deployment, "xrf", "bench", 30.0, recipe.registered)
    assert work.ready is not None
    kernel = work.ready.kernel
    reading, writing = os.pipe()

    def telling(frames: Any) -> Any:
        os.write(writing, struct.pack("d", clock.monotonic()))
        return kernel(frames)

    pid = os.fork()
    if not pid:
        told = replace(work, ready=replace(work.ready, kernel=telling))
        os._exit(nursery.Nursery(told, life.Life(1, TASKS + 1)).run().code)
    try:
        beamline = _Beamline(deployment, task_of(deployment))
        beamline.serve(TASKS + 1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    began = struct.unpack(f"{TASKS + 1}d", os.read(reading, 1 << 16))
    return [1e3 * (one - end) for one, end in zip(began[1:], beamline.ends, strict=False)]


def strict(deployment: Deployment, task: Task) -> float:
    """Return the seconds that a job of one task takes, from the first line of its script to its end."""
    began = clock.monotonic()
    job = _job(deployment, 1)
    try:
        _Beamline(deployment, task).serve(1)
        assert job.wait(30) == 0
        return clock.monotonic() - began
    finally:
        job.kill()
        job.wait()


def _job(deployment: Deployment, tasks: int) -> "subprocess.Popen[bytes]":
    beamtide = [sys.executable, "-m", "beamtide"] if deployment.site.container.runtime == "none" else ["beamtide"]
    command = [*beamtide, "work", "-c", str(deployment.file), "--pipeline", "xrf", "--slots", "1"]
    command += ["--tasks", str(tasks), "--idle-exit", "30"]
    (deployment.site.state / "run").mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(["bash", "-c", enter.script(deployment, command)])


@contextlib.contextmanager
def _routers(deployment: Deployment) -> Iterator[list[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    try:
        sockets = []
        for name in ("buffer.xrf", "sorter.xrf"):
            socket = context.socket(zmq.ROUTER)
            socket.bind(deployment.address(name))
            sockets.append(socket)
        yield sockets
    finally:
        context.destroy(linger=200)
