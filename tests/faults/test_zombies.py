"""Processes that stand still and come back: workers (F7) and the buffer itself (F9), as real processes with short leases."""

import pathlib
from collections.abc import Iterator

import pytest

from beamtide import clock
from beamtide.config.models import LeaseConfig
from beamtide.messages import results as r
from beamtide.messages.base import Ok
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import Lease, LeaseRequest, SubmitRequest, TaskDone
from beamtide.pump import Caller
from tests.builders.tasks import make_product
from tests.faults import load
from tests.faults.fork_server import ForkServer
from tests.waits import wait_until

pytestmark = pytest.mark.system
SERVICES = ("distributor", "buffer.p", "sorter.p", "sink")


class Scene:
    """One site, and the test as a worker with good manners."""

    def __init__(self, folder: pathlib.Path, leases: LeaseConfig) -> None:
        self.folder, self.deployment = folder, load.site(folder, leases)
        self.forks, self.caller = ForkServer(self.deployment, folder), Caller()
        self.forks.start(*SERVICES)
        self.tasks = [task for task in load.tasks_of("scan_0") if task.pipeline == "p"]

    def submit(self, count: int) -> None:
        request = SubmitRequest(tasks=tuple(self.tasks[:count]))
        self.caller.ask(self.deployment.address("distributor"), request, Ok, patience=30)

    def sleepers(self, count: int) -> list[str]:
        names = [f"sleeper.p.{number}" for number in range(count)]
        self.forks.start(*names)
        wait_until(lambda: len(load.written(self.folder, "leased")) == count, patience=60)
        return names

    def say(self, step: str, number: int) -> None:
        (self.folder / f"{step}.{number}").touch()

    def gauge(self) -> BufferGauge:
        return self.caller.ask(self.deployment.address("buffer.p"), GaugeRequest(), BufferGauge, patience=30)

    def do_it(self) -> Lease:
        """Lease a task, store its result, and say so."""
        buffer = self.deployment.address("buffer.p")
        lease = self.caller.ask(buffer, LeaseRequest(worker="good", job="j", wait=30.0), Lease, patience=60)
        result = r.StoreRequest(task=lease.task, attempt=lease.attempt, outcome="result", datasets=load.HEADERS)
        arrays = load.arrays_of(lease.task, lease.attempt)
        self.caller.ask(self.deployment.address("sorter.p"), result, Ok, arrays=arrays, patience=30)
        done = TaskDone(worker="good", task=lease.task.id, attempt=lease.attempt, outcome="result")
        self.caller.ask(buffer, done, Ok, patience=30)
        return lease

    def visible(self) -> list[tuple[int, float]]:
        """Return attempt and first value of each result that the sink has."""
        product = make_product("scan_0", settings=load.SETTINGS)
        request = r.ResultsRequest(product=product, start=0)
        answer, arrays = self.caller.converse(self.deployment.address("sink"), request, r.Results, patience=30)
        return [(one.attempt, float(arrays[f"{number}/value"][0])) for number, one in enumerate(answer.results)]


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Iterator[Scene]:
    made = Scene(tmp_path, LeaseConfig(ttl=1.0, beat=0.2))
    with made.forks, made.caller:
        yield made


@pytest.mark.parametrize("phase", ["store", "done"])
def test_a_worker_that_was_frozen_changes_nothing_when_it_comes_back(scene: Scene, phase: str) -> None:
    """F7: frozen before its result is stored, or between that and its acknowledgement, until another has done the task."""
    scene.submit(1)
    (name,) = scene.sleepers(1)
    if phase == "done":
        scene.say("store", 0)
        wait_until(lambda: load.written(scene.folder, "stored"), patience=60)
    scene.forks.freeze(name)
    second = scene.do_it()
    assert second.attempt == 2
    scene.forks.thaw(name)
    for step in ("store", "done"):
        scene.say(step, 0)
    wait_until(lambda: load.written(scene.folder, "answers"), patience=60)
    assert load.written(scene.folder, "answers") == ["sleeper0 Stale"]
    first = 1 if phase == "done" else 2
    assert scene.visible() == [(first, float(load.arrays_of(second.task, first)["value"][0]))], "the first result stays"


@pytest.mark.long
def test_a_buffer_that_was_frozen_takes_nobodys_task_away(tmp_path: pathlib.Path) -> None:
    """F9: all leases look expired at once; beats are heard before anybody is judged."""
    scene = Scene(tmp_path, LeaseConfig(ttl=4.0, beat=0.3))
    with scene.forks, scene.caller:
        scene.submit(5)
        scene.sleepers(5)
        scene.forks.freeze("buffer.p")
        clock.pause(8.0)
        scene.forks.thaw("buffer.p")
        seen = [scene.gauge()]
        end = clock.monotonic() + 5.0
        while clock.monotonic() < end:
            seen.append(scene.gauge())
            clock.pause(0.1)
        assert {(one.leased, one.ready, one.retried) for one in seen} == {(5, 0, 0)}
        for number in range(5):
            for step in ("store", "done"):
                scene.say(step, number)
        wait_until(lambda: len(load.written(scene.folder, "answers")) == 5, patience=60)
        assert {line.split()[1] for line in load.written(scene.folder, "answers")} == {"Ok"}
