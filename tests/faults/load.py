"""Load for components that are killed: a source that never ends, and workers with bad luck, each in a process of its own.

What they were told is written down in the folder `history` at once, one short line per fact, so that an audit can hold it
against what the services have in the end. Whatever they are asked to do they may be killed in the middle of.
"""

import itertools
import os
import pathlib
import random
from collections.abc import Iterator

import numpy as np

from beamtide import clock
from beamtide.config.models import (
    Budgets,
    Deployment,
    LeaseConfig,
)
from beamtide.errors import Busy
from beamtide.machine import Arrays, Effect, Event, Heard, Send
from beamtide.messages import results as r
from beamtide.messages.base import Digest, Message, Ok, Seconds, TaskId
from beamtide.messages.tasks import (
    Beat,
    Lease,
    LeaseRequest,
    Stale,
    StatusRequest,
    SubmitRequest,
    Task,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Caller, Limits, Pump
from beamtide.session import Session
from tests.builders.cores import Quiet
from tests.builders.sites import make_pipeline, make_site
from tests.builders.tasks import make_need, make_task

POINTS = 60
MOST_OPEN = 120
"""The source waits while so many tasks are open."""
PATIENCE = 120.0
SETTINGS = Digest("5" * 64)
HEADERS = (r.DatasetHeader(name="value", units="1"),)
POISON = 37
"""A task with this index raises, always."""


def site(folder: pathlib.Path, leases: LeaseConfig, budgets: Budgets | None = None) -> Deployment:
    """Return a site of two pipelines, the second fenced on the first, with sockets in `folder`."""
    pipelines = [make_pipeline(name) for name in "pq"]
    return make_site(folder, *pipelines, jobs=0, state=folder / "s", leases=leases, budgets=budgets or Budgets())


def tasks_of(scan: str) -> list[Task]:
    """Return the tasks of a scan, always the same: in both pipelines every index once."""
    dice, tasks = random.Random(scan), []
    for pipeline in "pq":
        start = 0
        while start < POINTS:
            stop = min(POINTS, start + dice.randint(1, 4))
            tasks.append(task(scan, pipeline, start, stop))
            start = stop
    return tasks


def task(scan: str, pipeline: str, start: int, stop: int) -> Task:
    needs = (make_need(stop, "p", "value"),) if pipeline == "q" else ()
    whose = {"scan": scan, "pipeline": pipeline, "modality": pipeline, "settings": SETTINGS}
    return make_task(start, stop, id=f"{scan}/{pipeline}/{start}", needs=needs, **whose)


def arrays_of(task: Task, attempt: int) -> Arrays:
    """Return content that tells task and attempt apart."""
    return {"value": np.arange(task.start, task.stop, dtype=np.float64) + 1000.0 * attempt + 1e6 * ord(task.pipeline)}


def write_down(folder: pathlib.Path, what: str, line: str) -> None:
    """Append a fact; short lines that are appended at once stay whole."""
    (folder / "history").mkdir(exist_ok=True)
    file = os.open(folder / "history" / what, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def written(folder: pathlib.Path, what: str) -> list[str]:
    """Return all facts of a kind."""
    path = folder / "history" / what
    return path.read_text().splitlines() if path.exists() else []


def supply(deployment: Deployment, folder: pathlib.Path) -> None:
    """Submit scan after scan until the file `enough` is there; after a death, the last scan once more."""
    with Caller() as caller:
        begun = written(folder, "scans")
        for scan in itertools.chain(begun[-1:], _names(len(begun))):
            if scan not in begun and (folder / "enough").exists():
                return
            if scan not in begun:
                write_down(folder, "scans", scan)
            _submit(deployment, folder, caller, tasks_of(scan))


def _names(after: int) -> Iterator[str]:
    while True:
        yield f"scan_{after}"
        after += 1


def _submit(deployment: Deployment, folder: pathlib.Path, caller: Caller, tasks: list[Task]) -> None:
    address, dice = deployment.address("distributor"), random.Random()
    while tasks:
        status = caller.ask(address, StatusRequest(), TaskStatus, patience=PATIENCE)
        if sum(one.submitted - one.results - one.empty - one.abandoned for one in status.tallies) > MOST_OPEN:
            clock.pause(0.02)
            continue
        block, tasks = tasks[: (count := dice.randint(1, 12))], tasks[count:]
        caller.ask(address, SubmitRequest(tasks=tuple(block)), Ok, patience=PATIENCE)
        for task in block:
            write_down(folder, "accepted", task.id)


def worker(deployment: Deployment, folder: pathlib.Path, pipeline: str, number: str) -> None:
    """Work for ever: lease, beat, store, acknowledge; now and then the task raises."""
    buffer, name, dice = deployment.address(f"buffer.{pipeline}"), f"{pipeline}{number}-{os.getpid()}", random.Random()
    with Caller() as caller:
        while True:
            request = LeaseRequest(worker=name, job=number, wait=1.0, host="h")
            lease = caller.ask(buffer, request, Message, patience=PATIENCE)
            if isinstance(lease, Lease):
                _work(deployment, folder, caller, lease, (name, dice.random()))


def _work(deployment: Deployment, folder: pathlib.Path, caller: Caller, lease: Lease, who: tuple[str, float]) -> None:
    task, attempt, buffer = lease.task, lease.attempt, deployment.address(f"buffer.{lease.task.pipeline}")
    name, luck = who
    write_down(folder, "leased", f"{task.id} {attempt} {name}")
    for _ in range(int(luck * 4)):
        answer = caller.ask(buffer, Beat(worker=name, task=task.id, attempt=attempt), Message, patience=PATIENCE)
        if isinstance(answer, Stale):
            return
    if task.start <= POISON < task.stop or luck > 0.98:
        failed = TaskFailed(worker=name, task=task.id, attempt=attempt, cause="fault", reason="it raised")
        caller.ask(buffer, failed, Message, patience=PATIENCE)
        return
    provenance = r.Provenance(worker=name, host="h", job="j", attempt=attempt, seconds=0.0)
    result = r.StoreRequest(task=task, attempt=attempt, outcome="result", datasets=HEADERS, provenance=provenance)
    caller.ask(deployment.address(f"sorter.{task.pipeline}"), result, Ok, arrays=arrays_of(task, attempt), patience=PATIENCE)
    write_down(folder, "stored", task.id)
    done = TaskDone(worker=name, task=task.id, attempt=attempt, outcome="result", seconds=0.01)
    caller.ask(buffer, done, Message, patience=PATIENCE)


HEAVY = 30
"""Tasks of a flood that begin below this index have results of 1 MiB."""


def flood(deployment: Deployment, folder: pathlib.Path) -> None:
    """Submit as much as the distributor takes, and note when it takes no more, until the file `enough` is there."""
    start = 0
    with Caller() as caller:
        while not (folder / "enough").exists():
            tasks = tuple(task("flood", "p", number, number + 1) for number in range(start, start + 500))
            try:
                caller.ask(deployment.address("distributor"), SubmitRequest(tasks=tasks), Ok, patience=0.5)
            except Busy as error:
                write_down(folder, "busy", f"source {error}")
                continue
            start += 500
            write_down(folder, "accepted", str(start))


def heavy(deployment: Deployment, folder: pathlib.Path, number: str) -> None:
    """Be a worker whose first results are large: ask for room, store, and wait while there is none."""
    buffer, sorter, name = deployment.address("buffer.p"), deployment.address("sorter.p"), f"heavy{number}"
    with Caller() as caller:

        def insist(message: Message, arrays: Arrays) -> None:
            while True:
                try:
                    caller.ask(sorter, message, Ok, arrays=arrays, patience=2.0)
                except Busy as error:
                    write_down(folder, "busy", f"{name} {error}")
                    continue
                return

        while True:
            lease = caller.ask(buffer, LeaseRequest(worker=name, job="j", wait=1.0), Message, patience=PATIENCE)
            if isinstance(lease, Lease):
                task, size = lease.task, 1 << 17 if lease.task.start < HEAVY else 1
                arrays = {"value": np.full((1, size), float(task.start))}
                insist(r.RoomRequest(task=task.id, size=8 * size), {})
                insist(r.StoreRequest(task=task, attempt=lease.attempt, outcome="result", datasets=HEADERS), arrays)
                done = TaskDone(worker=name, task=task.id, attempt=lease.attempt, outcome="result", seconds=0.01)
                caller.ask(buffer, done, Message, patience=PATIENCE)


class SlowSink(Quiet):
    """Takes a megabyte a second until the file `fast` is there, and notes what it takes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        match event:
            case Heard(message=r.ReleaseHeld(task=task, payload=payload)):
                return self._take(event, task, payload.length)
            case Heard(message=r.Release(result=result)):
                return self._take(event, result.task.id, sum(array.nbytes for array in event.arrays.values()))
        return []

    def _take(self, event: Heard, task: TaskId, size: int) -> list[Effect]:
        if not (self.folder / "fast").exists():
            clock.pause(size / 1e6)
        write_down(self.folder, "taken", task)
        return [Send(event.peer, r.Released(task=task), event.id)]


def slowsink(deployment: Deployment, folder: pathlib.Path) -> None:
    """Be the sink of a site whose disk takes a megabyte a second."""
    card = ComponentCard(name="sink", kind="sink", address=deployment.address("sink"))
    Pump(SlowSink(folder), Session(card), {}, None, Limits(8 << 20, 4)).run()


def sleeper(deployment: Deployment, folder: pathlib.Path, pipeline: str, number: str) -> None:
    """Lease one task; before each further step wait for the test, sending heartbeats. It goes on although it is stale."""
    buffer, name = deployment.address(f"buffer.{pipeline}"), f"sleeper{number}"
    with Caller() as caller:
        lease = caller.ask(buffer, LeaseRequest(worker=name, job="j", wait=30.0), Lease, patience=PATIENCE)
        task, attempt = lease.task, lease.attempt
        write_down(folder, "leased", f"{task.id} {attempt} {name}")

        def until(step: str) -> None:
            while not (folder / f"{step}.{number}").exists():
                caller.ask(buffer, Beat(worker=name, task=task.id, attempt=attempt), Message, patience=PATIENCE)
                clock.pause(deployment.site.leases.beat)

        until("store")
        result = r.StoreRequest(task=task, attempt=attempt, outcome="result", datasets=HEADERS)
        address = deployment.address(f"sorter.{pipeline}")
        caller.ask(address, result, Ok, arrays=arrays_of(task, attempt), patience=PATIENCE)
        write_down(folder, "stored", f"{task.id} {attempt} {name}")
        until("done")
        done = TaskDone(worker=name, task=task.id, attempt=attempt, outcome="result", seconds=0.01)
        answer = caller.ask(buffer, done, Message, patience=PATIENCE)
        write_down(folder, "answers", f"{name} {type(answer).__name__}")
