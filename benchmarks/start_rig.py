"""A stand-in for buffer and sorter, as light as can be, and the jobs whose workers it times."""

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

import zmq

from beamline_side.hosts import demo
from beamline_side.simulation import beamline
from beamtide import clock, codec
from beamtide.config import settings, site
from beamtide.config.models import Deployment
from beamtide.messages import Ok
from beamtide.messages.base import PipelineName, ScanId, TaskId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import InputFile, Lease, LeaseRequest, Task, TaskDone
from cluster_side.images import enter
from cluster_side.worker.job import job_policy, prefork_pool
from cluster_side.worker.task import ready_kernel

POINTS = 20


TASKS, NAIVE = 60, 5


SCAN = Scan(id=ScanId("scan_00001"), shape=(1, POINTS), axes=("y", "x"))


def task_of(deployment: Deployment) -> Task:
    """Return the one task of the simulated scan."""
    prepared = settings.document_for(deployment.pipelines["xrf"], site.shared_root(deployment))
    file = next((deployment.site.roots.raw / SCAN.id / beamline.DETECTOR).glob("*.nxs"))
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


@dataclass(slots=True)
class Served:
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
        served = Served(deployment, task)
        return served.serve(times + 1)[1:], served.free
    finally:
        job.kill()
        job.wait()


def to_kernel(folder: pathlib.Path) -> list[float]:
    """Return how long a slot was free until the kernel of its next task ran, frames read: of a job whose kernel tells when."""
    deployment = demo.prepare_demo(folder)
    beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
    (deployment.site.state / "run").mkdir(parents=True, exist_ok=True)
    work = prefork_pool.prepare_work(deployment, "xrf", "bench", 30.0, ready_kernel.registered)
    assert work.ready is not None
    kernel = work.ready.kernel
    reading, writing = os.pipe()

    def telling(frames: Any) -> Any:
        os.write(writing, struct.pack("d", clock.monotonic()))
        return kernel(frames)

    pid = os.fork()
    if not pid:
        told = replace(work, ready=replace(work.ready, kernel=telling))
        os._exit(prefork_pool.PreforkPool(told, job_policy.JobPolicy(1, TASKS + 1)).run().code)
    try:
        served = Served(deployment, task_of(deployment))
        served.serve(TASKS + 1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    began = struct.unpack(f"{TASKS + 1}d", os.read(reading, 1 << 16))
    return [1e3 * (one - end) for one, end in zip(began[1:], served.ends, strict=False)]


def strict(deployment: Deployment, task: Task) -> float:
    """Return the seconds that a job of one task takes, from the first line of its script to its end."""
    began = clock.monotonic()
    job = _job(deployment, 1)
    try:
        Served(deployment, task).serve(1)
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
