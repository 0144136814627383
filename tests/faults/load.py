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
from beamtide.config import Caps, Deployment, Leases, PipelineConfig, Roots, Scaling, SiteConfig, Source
from beamtide.machine import Arrays
from beamtide.messages import results as r
from beamtide.messages.base import Digest, Message, Ok, PipelineName, ScanId, TaskId
from beamtide.messages.tasks import (
    Beat,
    Lease,
    LeaseRequest,
    Need,
    Stale,
    StatusRequest,
    SubmitRequest,
    Task,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from beamtide.pump import Caller

POINTS = 60
MOST_OPEN = 120
"""The source waits while so many tasks are open."""
PATIENCE = 120.0
SETTINGS = Digest("5" * 64)
HEADERS = (r.DatasetHeader(name="value", units="1"),)
POISON = 37
"""A task with this index raises, always."""


def site(folder: pathlib.Path, leases: Leases) -> Deployment:
    """Return a site of two pipelines, the second fenced on the first, with sockets in `folder`."""
    roots = Roots(raw=folder, processed=folder)
    config = SiteConfig(
        site="t",
        roots=roots,
        state=folder / "s",
        scaling=Scaling(caps=Caps(jobs=0, node_hours_per_day=100)),
        pipelines=(),
        leases=leases,
    )
    pipelines = {name: PipelineConfig(pipeline=name, modality=name, source=Source(match="*")) for name in "pq"}
    return Deployment(site=config, pipelines=pipelines, file=folder / "site.yaml")


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
    needs = (Need(pipeline=PipelineName("p"), dataset="value", upto=stop),) if pipeline == "q" else ()
    return Task(
        id=TaskId(f"{scan}/{pipeline}/{start}"),
        scan=ScanId(scan),
        pipeline=PipelineName(pipeline),
        modality=pipeline,
        start=start,
        stop=stop,
        inputs=(),
        settings=SETTINGS,
        needs=needs,
    )


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


def sleeper(deployment: Deployment, folder: pathlib.Path, pipeline: str, number: str) -> None:
    """Lease one task, then wait, beating, for a word of the test before each further step. It goes on although it is stale."""
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
