"""How long a worker takes for one small XRF task, from the lease it is given to the `TaskDone` that comes back.

Ours is a worker process forked by the real prefork pool (`beamtide work`); the peer is naive, a Python process that imports and
configures the same kernel for one task; the floor is reading and fitting alone, in a process that is warm.
"""

import pathlib
import subprocess
import sys

import msgspec

from beamline_side.hosts import demo
from beamline_side.simulation import beamline
from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from benchmarks import start_in_image
from benchmarks.measure import Beside, Book, scratch
from benchmarks.start_rig import NAIVE, POINTS, SCAN, TASKS, forked, task_of, to_kernel
from cluster_side.worker.job import prefork_pool
from cluster_side.worker.task import inputs, ready_kernel


def run(book: Book) -> None:
    """Measure a worker's life."""
    with scratch() as folder:
        deployment = demo.prepare_demo(pathlib.Path(folder))
        beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
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
        book.row("slot_free_to_kernel_p50_ms", to_kernel(pathlib.Path(folder)), "ms", "lower")
    start_in_image.run(book)


def _naive(deployment: Deployment, task: Task) -> float:
    file = deployment.site.state / "task.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(task))
    began = clock.monotonic()
    command = [sys.executable, "-m", "benchmarks.naive", str(deployment.file), str(file)]
    subprocess.run(command, check=True)
    return 1e3 * (clock.monotonic() - began)


def _warm(deployment: Deployment, task: Task, times: int) -> list[float]:
    work = prefork_pool.prepare_work(deployment, "xrf", "warm", 0.0, ready_kernel.registered)
    assert work.ready is not None
    taken = []
    with Caller() as caller:
        for _ in range(times + 1):
            began = clock.monotonic()
            given, _ = inputs.read(task, deployment.site.roots, caller, deployment.address("sink"))
            work.ready.kernel(given.arrays)
            taken.append(1e3 * (clock.monotonic() - began))
    return taken[1:]
