"""Jobs with real processes and sockets, against a small service that plays buffer and sorter at once."""

import json
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from numpy.typing import NDArray
from zmq.utils.monitor import recv_monitor_message

from beamtide import clock
from beamtide.config import settings
from beamtide.config.models import Deployment
from beamtide.machine import Arrays, Effect, Event, Heard, Send, WakeAt
from beamtide.messages import Message, Ok
from beamtide.messages.base import Seconds
from beamtide.messages.metadata import SettingsDocument
from beamtide.messages.results import StoreRequest
from beamtide.messages.tasks import Beat, Lease, LeaseRequest, NoTask, Stale, Task, TaskDone, TaskFailed
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Pump
from beamtide.session import Session
from cluster_side.modalities.base import Kernel, Modality, Output, SettingsModel
from cluster_side.worker.job import job_policy, prefork_pool, worker_process
from cluster_side.worker.task import one_task
from cluster_side.worker.task.work import Work
from tests.builders.cores import Quiet, pumping
from tests.builders.sites import make_pipeline, make_site
from tests.builders.tasks import make_input, make_task

pytestmark = pytest.mark.system


class ToySettings(SettingsModel):
    factor: float = 2.0
    mood: str = "good"


hoard: list[NDArray[Any]] = []


def load(wanted: ToySettings, calibration: dict[str, pathlib.Path]) -> Kernel:
    def kernel(frames: Arrays) -> Arrays:
        os.write(2, b"a library warns\n")
        if wanted.mood == "bad":
            raise ZeroDivisionError("the beam is off")
        if wanted.mood == "greedy":
            hoard.append(np.ones(30_000_000))
            signal.pause()
        while wanted.mood == "slow" and int(frames["v"][0]) == 0:
            signal.pause()
        return {"twice": frames["v"] * wanted.factor}

    return kernel


TOY = Modality("toy", ToySettings, lambda _: (Output("twice", "1"),), "toy_kernel:load")


class Toy(Modality):
    def load(self, values: Any, calibration: Any, *keep: Any) -> Kernel:
        return load(ToySettings(**values), calibration)


class Numbers:
    """A file format: one number per line."""

    def read(self, path: pathlib.Path, first: int, last: int, options: Any) -> dict[str, NDArray[Any]]:
        return {"v": np.loadtxt(path, ndmin=1)[first:last]}


@dataclass
class Beamline(Quiet):
    """Buffer and sorter in one: hands out tasks, takes what comes."""

    tasks: list[Task] = field(default_factory=list)
    waiting: list[tuple[bytes, int, float]] = field(default_factory=list)
    heard: list[tuple[float, Message, Any]] = field(default_factory=list)
    leases: list[tuple[str, str]] = field(default_factory=list)
    stale: bool = False
    nothing: NoTask = NoTask()
    changed: threading.Condition = field(default_factory=threading.Condition)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(event, Heard):
            with self.changed:
                effects += self._heard(event, now)
                self.heard.append((now, event.message, {name: array.copy() for name, array in event.arrays.items()}))
                self.changed.notify_all()
        due = [one for one in self.waiting if one[2] <= now]
        self.waiting = [one for one in self.waiting if one[2] > now]
        return effects + [Send(peer, self.nothing, number) for peer, number, _ in due]

    def _heard(self, event: Heard, now: float) -> list[Effect]:
        match event.message:
            case LeaseRequest(worker=worker, wait=wait) if self.tasks:
                task = self.tasks.pop(0)
                self.leases.append((worker, task.id))
                return [Send(event.peer, Lease(task=task, attempt=1, ttl=20.0), event.id)]
            case LeaseRequest(wait=wait):
                self.waiting.append((event.peer, event.id, now + wait))
                return [WakeAt(Seconds(now + wait))]
            case Beat(task=task) if self.stale:
                return [Send(event.peer, Stale(task=task, attempt=1), event.id)]
        return [Send(event.peer, Ok(), event.id)]

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for _, message, _ in self.heard if isinstance(message, kind)]

    def wait_for(self, what: Any, seconds: float = 15.0) -> None:
        with self.changed:
            assert self.changed.wait_for(what, seconds), f"did not happen; heard {[m for _, m, _ in self.heard]}"


@dataclass
class Shelves(Quiet):
    """The sorter's half: says Ok."""

    line: Beamline

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        if not isinstance(event, Heard):
            return []
        with self.line.changed:
            self.line.heard.append((now, event.message, {name: array.copy() for name, array in event.arrays.items()}))
            self.line.changed.notify_all()
        return [Send(event.peer, Ok(), event.id)]


@contextmanager
def beamline(deployment: Deployment, *, sorter: bool = True) -> Iterator[Beamline]:
    node = Beamline()
    parts = {"buffer.toy": node} | ({"sorter.toy": Shelves(node)} if sorter else {})
    pumps = [
        Pump(part, Session(ComponentCard(name=name, kind="toy", address=deployment.address(name))), {})
        for name, part in parts.items()
    ]
    with pumping(*pumps):
        yield node


def deployment_in(folder: pathlib.Path, **toy: Any) -> Deployment:
    for name in ("raw", "state/cache"):
        (folder / name).mkdir(parents=True)
    (folder / "raw/numbers.txt").write_text("\n".join(str(number) for number in range(100)))
    places = {"roots": {"raw": folder / "raw", "processed": folder}, "state": folder / "state"}
    deployment = make_site(folder, make_pipeline("toy", settings=toy), **places, leases={"beat": 0.2})
    deployment.sockets().mkdir(mode=0o700)
    return deployment


def task(deployment: Deployment, start: int) -> Task:
    digest = settings.document_for(deployment.pipelines["toy"], deployment.file.parent).digest
    given = make_input("numbers.txt", start, start + 2, format="numbers")
    more = {"pipeline": "toy", "modality": "toy", "inputs": (given,), "settings": digest}
    return make_task(start, start + 2, id=f"s/{start}", **more)


@contextmanager
def job(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    plan: job_policy.JobPolicy,
    idle: float = 0.2,
    ends: float | None = None,
    **more: Any,
) -> Iterator[int]:
    """Fork a job, as `beamtide work` would be; it is gone at the end."""
    monkeypatch.setattr("beamtide.registry.find", lambda group, name: Numbers())
    toy = Toy(TOY.name, TOY.settings, TOY.outputs, TOY.kernel)
    work = prefork_pool.prepare_work(deployment, "toy", "job-1", idle, lambda name: toy, ends=ends)
    pid = os.fork()
    if not pid:
        os._exit(prefork_pool.PreforkPool(work, plan, **more).run().code)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def children(pid: int) -> list[int]:
    return [int(worker_process) for worker_process in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_each_task_has_a_process_of_its_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path)
    with beamline(deployment) as line:
        line.tasks = [task(deployment, start) for start in (0, 2, 4)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1)) as pid:
            assert code_of(pid) == 0
    assert len({worker for worker, _ in line.leases}) == 3
    kinds = [type(message) for _, message, _ in line.heard if isinstance(message, StoreRequest | TaskDone)]
    assert kinds == [StoreRequest, TaskDone] * 3
    stored = [(message, arrays) for _, message, arrays in line.heard if isinstance(message, StoreRequest)]
    assert [arrays["twice"].tolist() for _, arrays in stored] == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
    assert stored[0][0].provenance is not None
    assert stored[0][0].provenance.job == "job-1"


def test_strict_shape_takes_one_task(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path)
    with beamline(deployment) as line:
        line.tasks = [task(deployment, start) for start in (0, 2)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)) as pid:
            assert code_of(pid) == 0
    assert len(line.of(LeaseRequest)) == len(line.of(TaskDone)) == len(line.tasks) == 1


def test_a_killed_worker_is_reported_at_once(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)) as pid:
            line.wait_for(lambda: line.of(Beat))
            killed = clock.monotonic()
            os.kill(int(line.leases[0][0].rpartition("-")[2]), signal.SIGKILL)
            line.wait_for(lambda: line.of(TaskFailed))
            assert clock.monotonic() - killed < 2.0
            assert code_of(pid) == 0
    (failed,) = line.of(TaskFailed)
    assert (failed.cause, failed.worker) == ("infra", line.leases[0][0])
    assert "was killed by signal 9 (SIGKILL)" in failed.reason
    assert failed.stderr == "a library warns\n", "its parent reports what it wrote last"


def test_a_kernel_that_raises_is_a_fault_with_a_sentence(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    deployment = deployment_in(tmp_path, mood="bad")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)) as pid:
            assert code_of(pid) == 0
    (failed,) = line.of(TaskFailed)
    assert (failed.cause, failed.reason) == ("fault", "ZeroDivisionError: the beam is off")
    assert "in kernel" in failed.trace
    assert failed.stderr == "a library warns\n"
    assert failed.at > 1e9
    assert "a library warns" in capfd.readouterr().err, "the job's log has it, too"
    assert not line.of(StoreRequest)


def test_two_slots_work_at_once_and_leave_politely(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    monkeypatch.setattr(job_policy, "GRACE", 0.5)
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0), task(deployment, 2)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(2), idle=30.0) as pid:
            line.wait_for(lambda: line.of(TaskDone) and len(line.of(LeaseRequest)) >= 3)
            assert line.of(TaskDone)[0].task == "s/2", "the second slot finished while the first worked on"
            os.kill(pid, signal.SIGTERM)
            assert code_of(pid) == 0
    (failed,) = line.of(TaskFailed)
    assert (failed.task, failed.cause) == ("s/0", "handback")


def test_a_task_that_takes_too_much_memory_is_ended_with_a_sentence(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployment_in(tmp_path, mood="greedy")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1), memory_mb=100) as pid:
            assert code_of(pid) == 0
    (failed,) = line.of(TaskFailed)
    assert failed.cause == "fault"
    assert "and job.memory_per_slot allows 100 MiB: raise that in the pipeline file" in failed.reason


def test_a_job_that_is_not_wanted_leaves_when_its_task_is_done(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path)
    with beamline(deployment) as line:
        line.tasks, line.nothing = [task(deployment, 2)], NoTask(leave=True, reason="not wanted")
        with job(deployment, monkeypatch, job_policy.JobPolicy(2), idle=30.0) as pid:
            assert code_of(pid) == 0
    assert len(line.of(TaskDone)) == 1
    assert len(line.of(LeaseRequest)) <= 3, "no worker after the one that was told to leave"


def test_an_idle_worker_stays_as_long_as_the_buffer_wants_and_says_how_long_its_job_may_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployment_in(tmp_path)
    monkeypatch.setattr("cluster_side.worker.task.one_task.LONGEST_WAIT", 0.1)
    ends = clock.monotonic() + 100.0
    with beamline(deployment) as line:
        line.nothing = NoTask(linger=60.0)
        with job(deployment, monkeypatch, job_policy.JobPolicy(1), ends=ends) as pid:
            line.wait_for(lambda: len(line.of(LeaseRequest)) >= 5)
            line.nothing = NoTask()
            assert code_of(pid) == 0
    assert len({request.worker for request in line.of(LeaseRequest)}) == 1
    assert 0.0 < line.of(LeaseRequest)[-1].left < line.of(LeaseRequest)[0].left <= 100.0


def test_workers_are_pinned_to_cpus_of_their_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    (cpu, *_) = sorted(os.sched_getaffinity(0))
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1), pins=(frozenset({cpu}),)):
            line.wait_for(lambda: line.of(Beat))
            assert os.sched_getaffinity(int(line.leases[0][0].rpartition("-")[2])) == {cpu}


def test_the_next_worker_is_born_before_it_is_needed_and_may_die_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0), task(deployment, 2)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1)) as pid:
            line.wait_for(lambda: line.of(Beat) and len(children(pid)) == 2)
            worker = int(line.leases[0][0].rpartition("-")[2])
            (spare,) = set(children(pid)) - {worker}
            assert len(line.of(LeaseRequest)) == 1, "it asks for nothing before its time"
            os.kill(spare, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
            line.wait_for(lambda: line.of(TaskDone))
            assert code_of(pid) == 0
    assert [failed.task for failed in line.of(TaskFailed)] == ["s/0"], "nobody is told of a spare that died"
    assert spare not in {int(worker.rpartition("-")[2]) for worker, _ in line.leases}


def test_a_child_connects_before_it_may_start_and_asks_for_nothing(tmp_path: pathlib.Path) -> None:
    work = Work(deployment_in(tmp_path), "toy", "job-1", idle_exit=0.0)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as buffer, buffer.get_monitor_socket() as seen:
        buffer.bind(work.buffer)

        def begun() -> bool:
            events = iter(lambda: recv_monitor_message(seen)["event"] if seen.poll(5000) else None, None)
            assert zmq.Event.HANDSHAKE_SUCCEEDED in events
            assert not buffer.poll(0)
            return False

        assert one_task.run(work, pytest.fail, begun) == 0
        assert not buffer.poll(0), "nor when it may not start"
        buffer.disable_monitor()


def test_a_worker_connects_to_the_sorter_while_it_computes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sorter, sorter.get_monitor_socket() as seen:
        sorter.bind(deployment.address("sorter.toy"))
        with beamline(deployment, sorter=False) as line:
            line.tasks = [task(deployment, 0)]
            with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)):
                line.wait_for(lambda: line.of(Beat))
                events = iter(lambda: recv_monitor_message(seen)["event"] if seen.poll(5000) else None, None)
                assert zmq.Event.HANDSHAKE_SUCCEEDED in events
                assert not sorter.poll(0), "there is nothing to say yet"
        sorter.disable_monitor()


def test_no_spare_is_born_for_a_job_without_a_further_task(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)) as pid:
            line.wait_for(lambda: len(line.of(Beat)) > 5)
            assert len(children(pid)) == 1


def test_who_is_stale_leaves_without_storing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with beamline(deployment) as line:
        line.tasks, line.stale = [task(deployment, 0)], True
        with job(deployment, monkeypatch, job_policy.JobPolicy(1, 1)) as pid:
            assert code_of(pid) == 0
    assert not line.of(StoreRequest)
    assert not line.of(TaskFailed)


def test_workers_die_with_their_parent(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployment_in(tmp_path, mood="slow")
    with beamline(deployment) as line:
        line.tasks = [task(deployment, 0)]
        with job(deployment, monkeypatch, job_policy.JobPolicy(1)) as pid:
            line.wait_for(lambda: line.of(Beat))
            os.kill(pid, signal.SIGKILL)
            line.wait_for(lambda: line.of(TaskFailed))
    assert line.of(TaskFailed)[0].cause == "handback"


class Loud:
    """A stream during whose last flush the parent dies."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_child_that_is_told_to_leave_while_it_leaves_does_not_go_on_as_its_parent() -> None:
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            sys.stdout = Loud()  # type: ignore[assignment]
            worker_process.become(parent, lambda: 3)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_damaged_cache_is_not_believed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster_side.worker.task import ready_kernel

    deployment = deployment_in(tmp_path)
    prepared = settings.document_for(deployment.pipelines["toy"], tmp_path)
    toy = Toy(TOY.name, TOY.settings, TOY.outputs, TOY.kernel)
    cache = tmp_path / "state/cache"
    ready_kernel.prepare(prepared, cache, lambda name: toy)
    (document,) = cache.glob("*.json")
    kept = json.loads(document.read_text())
    assert settings.digest_of(msgspec.json.decode(document.read_bytes(), type=SettingsDocument))
    document.write_text(json.dumps(kept).replace("toy", "tox"))
    with pytest.raises(ConnectionError):
        ready_kernel.obtain(prepared.digest, cache, (Unreachable(), "nowhere"), lambda name: toy)  # type: ignore[arg-type]


class Unreachable:
    def ask(self, *_: object, **__: object) -> None:
        raise ConnectionError
