"""How fast tasks go through the real buffer: durable, its own process, TCP loopback with CURVE, fed by the real pull protocol.

A task's life is two round trips of a worker (lease, done) and its share of the pulls; the floor is two raw ROUTER echoes of 200
bytes (CURVE too), measured in the same run with as many clients. A second floor keeps what it hears as simply as can be: all that
waits is appended to a file, synced once and sent back; with one client, that is most of what a task costs.
Service, load and whoever else is on this machine share its cores: CPU per task is the number to carry elsewhere.
"""

import contextlib
import math
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import zmq

from beamline_side.cores.buffer.open_task import OpenTask
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.spool.sqlite_spool import Spool
from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import NoAnswer
from beamtide.machine import Forget, Heard, Keep
from beamtide.messages.base import Seconds
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import Lease, LeaseRequest, SubmitRequest
from beamtide.pump import Caller
from beamtide.security.guard import identity_of
from benchmarks import load, services
from benchmarks.measure import Beside, Book, cpu_seconds, percentile, resident, scratch

REPETITIONS = 5
SECONDS = 2.0
WORKERS = (500, 50, 1)
QUEUED = 1_000_000
CURVE: dict[str, Any] = {"mechanism": "CURVE", "body_bytes": 200, "durable": True}


def run(book: Book) -> None:
    """Measure everything."""
    with scratch() as folder:
        _streams(book, pathlib.Path(folder))
    with scratch() as folder:
        _restart(book, pathlib.Path(folder))
    with scratch() as folder:
        _restart_newest_first(book, pathlib.Path(folder))


def _streams(book: Book, folder: pathlib.Path) -> None:
    """Repeat: floor and ours with each number of workers, one after the other, then the open loop."""
    ours: dict[int, list[load.Tally]] = {count: [] for count in WORKERS}
    floor: dict[int, list[load.Tally]] = {count: [] for count in WORKERS}
    kept: dict[int, list[load.Tally]] = {count: [] for count in WORKERS}
    paced: list[load.Tally] = []
    for repetition in range(REPETITIONS):
        deployment = services.deployment_in(folder / str(repetition), curve=True)
        book.sync(folder)
        with _buffer(deployment) as buffer:
            for count in WORKERS:
                floor[count].append(_echo(deployment, count))
                kept[count].append(_echo(deployment, count, str(folder / "echoed")))
                ours[count].append(buffer.measure(count))
            paced.append(buffer.measure(500, 4000.0))
    _rates(book, ours, floor)
    _cpu(book, ours, floor, "two raw ROUTER echoes, CPU", "")
    _cpu(book, ours, kept, "two raw ROUTER echoes, each synced to disk, CPU", "_synced")
    waits = [1e3 * percentile(tally.waits, 50) for tally in ours[1]]
    beside = Beside("a raw ROUTER echo", [1e3 * tally.seconds / (2 * tally.done) for tally in floor[1]])
    book.row("lease_p50_ms_1w", waits, "ms", "lower", floor=beside, notes=CURVE)
    ages = [1e3 * percentile(tally.ages, 99) for tally in paced]
    more = {"p50": statistics.median(1e3 * percentile(tally.ages, 50) for tally in paced)}
    more["tasks_per_s"] = statistics.median(tally.rate for tally in paced)
    book.row("open_loop_4000_p99_ms", ages, "ms", "lower", notes=CURVE | more)


def _rates(book: Book, ours: dict[int, list[load.Tally]], floor: dict[int, list[load.Tally]]) -> None:
    echo = "two raw ROUTER echoes"
    for count in WORKERS:
        beside = Beside(echo, [tally.rate for tally in floor[count]])
        busy = statistics.median(tally.service_cpu / tally.seconds for tally in ours[count])
        load_busy = statistics.median(tally.own_cpu / tally.seconds for tally in ours[count])
        more = {"service_busy": round(busy, 2), "load_busy": round(load_busy, 2)}
        book.row(
            f"tasks_per_s_{count}w", [tally.rate for tally in ours[count]], "1/s", "higher", floor=beside, notes=CURVE | more
        )


def _cpu(book: Book, ours: dict[int, list[load.Tally]], floor: dict[int, list[load.Tally]], name: str, suffix: str) -> None:
    for count in WORKERS:
        beside = Beside(name, [tally.cpu_us for tally in floor[count]])
        cpu = [tally.cpu_us for tally in ours[count]]
        book.row(f"service_cpu_us_per_task_{count}w{suffix}", cpu, "us", "lower", floor=beside, notes=CURVE)


class _Buffer:
    """The buffer's process, and its distributor."""

    def __init__(self, context: "zmq.Context[Any]", deployment: Deployment, pid: int) -> None:
        self._pid = pid
        self._place = load.Place(context, deployment.address("buffer.encoders"), identity_of(deployment, "worker"))
        component = identity_of(deployment, "component")
        assert component is not None
        self._distributor = load.Distributor(context, deployment.address("distributor"), component)

    def measure(self, workers: int, rate: float = math.inf) -> load.Tally:
        """Let `workers` work; tasks are there at once, or `rate` of them per second."""
        self._distributor.pace(rate)
        crowd = load.Workers(self._place, workers, self._distributor)
        return crowd.run(SECONDS, lambda: (cpu_seconds(self._pid), cpu_seconds(os.getpid())), warm=0.5 + workers / 1000)


@contextlib.contextmanager
def _buffer(deployment: Deployment) -> Iterator[_Buffer]:
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4096
    try:
        with services.serving(deployment, "buffer.encoders") as running:
            services.await_answer(deployment, "buffer.encoders")
            yield _Buffer(context, deployment, running["buffer.encoders"].pid)
    finally:
        context.destroy(linger=0)


def _echo(deployment: Deployment, count: int, *file: str) -> load.Tally:
    """Return what `count` clients get from a raw echo; with a file, from one that keeps there what it hears."""
    address, keys = deployment.address("sink"), deployment.site.network.keys
    context: zmq.Context[Any] = zmq.Context()
    context.max_sockets = 4096
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo", address, f"{keys}/component.key", *file])
    try:
        return load.echoes(
            load.Place(context, address, identity_of(deployment, "worker")), count, SECONDS / 2, lambda: cpu_seconds(process.pid)
        )
    finally:
        process.kill()
        process.wait()
        context.destroy(linger=0)


def _restart(book: Book, folder: pathlib.Path) -> None:
    """A million tasks wait in the distributor's journal, where backlogs live; both services start, and a worker asks."""
    deployment, began = services.deployment_in(folder / "site", curve=True), clock.monotonic()
    empty = [_first_lease(deployment, answered=False)[1]]
    _fill(deployment, QUEUED)
    took, spool = clock.monotonic() - began, deployment.site.state / "spool"
    disk = sum(path.stat().st_size for path in spool.iterdir()) / QUEUED
    starts = [_first_lease(deployment, answered=True) for _ in range(3)]
    how = {"queued": QUEUED, "where": "the distributor's journal; the buffer holds at most 1000", "filled_in_s": round(took, 1)}
    book.sync(folder)
    book.row("restart_1m_s", [seconds for seconds, _ in starts], "s", "lower", notes=how)
    memory = [max(0, full - empty[0]) / QUEUED for _, full in starts]
    book.row("bytes_per_queued_task", memory, "B", "lower", notes=how | {"what": "resident memory, both services"})
    book.row("disk_bytes_per_queued_task", [disk], "B", "lower", notes=how)


def _restart_newest_first(book: Book, folder: pathlib.Path) -> None:
    """The same where the buffer hands out the newest first, and so holds all tasks itself."""
    deployment = services.deployment_in(folder / "site", curve=True, order="lifo")
    empty = _first_lease(deployment, answered=False)[1]
    store = Spool(deployment.site.state / "spool" / "buffer.encoders.sqlite")
    for first in range(0, QUEUED, 1000):
        for number in range(first, first + 1000):
            row = OpenTask(load.task_of(number), number + 1).row()
            store.keep(row.table, row.key, row.body)
        store.commit()
    store.close()
    starts = [_first_lease(deployment, answered=True) for _ in range(3)]
    how = {"queued": QUEUED, "where": "the buffer, which hands out the newest first"}
    book.sync(folder)
    book.row("restart_1m_lifo_s", [seconds for seconds, _ in starts], "s", "lower", notes=how)
    memory = [max(0, full - empty) / QUEUED for _, full in starts]
    book.row("bytes_per_queued_task_lifo", memory, "B", "lower", notes=how | {"what": "resident memory, both services"})


def _fill(deployment: Deployment, count: int) -> None:
    """Submit tasks to the real distributor core and spool, in this process."""
    store = Spool(deployment.site.state / "spool" / "distributor.sqlite")
    machine = DistributorMachine({"encoders": "encoders"}, store)
    for first in range(0, count, 1000):
        tasks = tuple(load.task_of(number) for number in range(first, first + 1000))
        for effect in machine.handle(Heard(b"source", SubmitRequest(tasks=tasks), 1), Seconds(0.0)):
            if isinstance(effect, Keep):
                store.keep(effect.table, effect.key, effect.body)
            elif isinstance(effect, Forget):
                store.forget(effect.table, effect.key)
        store.commit()
    store.close()


def _first_lease(deployment: Deployment, answered: bool) -> tuple[float, int]:
    """Return the seconds from start to the first lease, and the memory of both services then."""
    address, began = deployment.address("buffer.encoders"), clock.monotonic()
    with (
        services.serving(deployment, "distributor", "buffer.encoders") as running,
        Caller(identity_of(deployment, "worker")) as caller,
    ):
        if answered:
            request = LeaseRequest(worker=f"node-{os.urandom(4).hex()}", job="job", wait=60.0)
            caller.ask(address, request, Lease, patience=120.0)
        else:
            with contextlib.suppress(NoAnswer):
                caller.ask(address, GaugeRequest(), BufferGauge, patience=30.0)
        return clock.monotonic() - began, sum(resident(process.pid) for process in running.values())
