"""Distributor and buffer as real processes, killed with kill -9 while tasks run: each task ends in exactly one verdict."""

import pathlib
import subprocess
import sys

import pytest

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import WireError
from beamtide.messages.base import Ok, ScanId
from beamtide.messages.tasks import (
    Lease,
    LeaseRequest,
    NoTask,
    Stale,
    SubmitRequest,
    Task,
    TaskDone,
    TaskStatus,
    WatchTasksRequest,
)
from beamtide.pump import Caller
from tests.builders.sites import make_pipeline, make_site
from tests.builders.tasks import make_task

pytestmark = pytest.mark.system
TASKS = 60
SERVE = """
import sys
from beamline_side.hosts.process import serve
from beamtide.config.models import Deployment
serve(Deployment.model_validate_json(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def deployment(tmp_path: pathlib.Path) -> Deployment:
    return make_site(tmp_path, make_pipeline(), jobs=0, state=tmp_path / "s")


def start(deployment: Deployment, component: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, deployment.model_dump_json(), component],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def task_of(number: int) -> Task:
    return make_task(number, id=f"s/{number}", pipeline="xrf", modality="xrf")


def work_once(caller: Caller, address: str, number: int) -> bool:
    """Be a worker with one task; False if there was none."""
    try:
        lease = caller.ask(address, LeaseRequest(worker=f"w{number}", job="j", wait=0.2), Lease, patience=20)
    except WireError as error:
        if NoTask.__name__ not in str(error):
            raise
        return False
    try:
        caller.ask(address, TaskDone(worker=f"w{number}", task=lease.task.id, attempt=lease.attempt), Ok, patience=20)
    except WireError as error:
        if Stale.__name__ not in str(error):
            raise
    return True


@pytest.mark.long
def test_each_task_gets_one_verdict_whoever_is_killed(deployment: Deployment) -> None:
    running = {name: start(deployment, name) for name in ("distributor", "buffer.xrf")}
    try:
        with Caller() as caller:
            for number in range(0, TASKS, 10):
                tasks = tuple(task_of(n) for n in range(number, number + 10))
                caller.ask(deployment.address("distributor"), SubmitRequest(tasks=tasks), Ok, patience=20)
            served, rounds, end = 0, 0, clock.monotonic() + 60
            while (status := read(caller, deployment)).tallies[0].results < TASKS and clock.monotonic() < end:
                rounds += 1
                for _ in range(15):
                    served += work_once(caller, deployment.address("buffer.xrf"), served)
                if rounds <= 4:
                    victim = ("distributor", "buffer.xrf")[rounds % 2]
                    running[victim].kill()
                    running[victim].wait()
                    running[victim] = start(deployment, victim)
        (tally,) = status.tallies
        assert (tally.submitted, tally.results, tally.empty, tally.abandoned) == (TASKS, TASKS, 0, 0)
        assert served <= TASKS + 4, "a lease that nobody gave up was handed out again"
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def read(caller: Caller, deployment: Deployment) -> TaskStatus:
    request = WatchTasksRequest(scan=ScanId("s"), wait=0.2)
    return caller.ask(deployment.address("distributor"), request, TaskStatus, patience=20)
