"""The scripted people of the imaginary site: a source that submits two scans, an operator, and workers with bad luck."""

from collections.abc import Callable

import numpy as np

from beamtide.machine import Arrays
from beamtide.messages import results as r
from beamtide.messages.base import Digest, Message, Ok
from beamtide.messages.dead_letters import DeadLetters, DeadListRequest, DropRequest, RetryRequest
from beamtide.messages.metadata import ScanEnded, ScanStarted
from beamtide.messages.tasks import (
    Beat,
    CancelRequest,
    Cause,
    Lease,
    LeaseRequest,
    Stale,
    SubmitRequest,
    Task,
    TaskDone,
    TaskFailed,
)
from tests.builders.scans import make_scan
from tests.builders.tasks import make_need, make_task
from tests.world.world import LEASES, Question, World

HEADERS = (
    r.DatasetHeader(name="value", units="1"),
    r.DatasetHeader(name="sum", units="counts", per="scan", merge="sum"),
)
SETTINGS = Digest("s")
NEVER_CAME = "the frames never came"


def arrays_of(task: Task, attempt: int) -> Arrays:
    """Content that tells task and attempt apart."""
    indexes = np.arange(task.start, task.stop, dtype=np.float64)
    return {"value": indexes / 7 + 100.0 * attempt + ord(task.pipeline), "sum": np.array([indexes.sum() + attempt])}


def result_of(task: Task, attempt: int, worker: str) -> r.StoreRequest:
    """Return what a worker stores; every ninth task has nothing to say."""
    empty = task.start % 9 == 8
    provenance = r.Provenance(worker=worker, host="h", job="j", attempt=attempt, seconds=0.1)
    headers = () if empty else HEADERS
    return r.StoreRequest(
        task=task, attempt=attempt, outcome="empty" if empty else "result", datasets=headers, provenance=provenance
    )


class Source:
    """Submits all tasks of one scan, in portions, some of them twice, until each was accepted."""

    def __init__(self, world: World, scan: str) -> None:
        dice = world.random
        self.world, self.name, self.left = world, f"source of {scan}", 0
        self.points = dice.randint(5, 12)
        self.scan = make_scan(scan, (self.points + dice.choice((0, 0, 2)),))
        self.tasks = [*self._cut("p"), *self._cut("q")]
        world.actors.add(self.name)
        world.at(dice.uniform(0, 4), lambda: self._ask("metadata", ScanStarted(scan=self.scan), self._run))
        if dice.random() < 0.25:
            world.at(dice.uniform(1, 12), lambda: self._ask("distributor", CancelRequest(scan=self.scan.id)))

    def _cut(self, pipeline: str) -> list[Task]:
        dice, tasks, start = self.world.random, [], 0
        while start < self.points:
            stop = min(self.points, start + dice.randint(1, 3))
            tasks.append(self._task(pipeline, start, stop))
            start = stop
        return tasks

    def _task(self, pipeline: str, start: int, stop: int) -> Task:
        dice = self.world.random
        upto = [stop] if dice.random() < 0.8 else [max(1, start), stop]
        upto = [self.points + 1] if dice.random() < 0.04 else upto  # a fence that nobody will ever reach
        needs = tuple(make_need(mark, "p", "value") for mark in upto) if pipeline == "q" else ()
        return make_task(
            start,
            stop,
            scan=self.scan.id,
            pipeline=pipeline,
            modality=pipeline,
            settings=SETTINGS,
            needs=needs,
            priority=dice.randint(0, 2),
            void=NEVER_CAME if dice.random() < 0.08 else "",
        )

    def _ask(self, to: str, message: Message, then: Callable[[], None] = lambda: None) -> None:
        def answered(answer: Message) -> None:
            assert isinstance(answer, Ok), f"{message} was answered {answer}"
            self.left -= 1
            then()

        self.left += 1
        self.world.ask(Question(self.name, to, message, {}, answered))

    def _run(self) -> None:
        """Submit in portions that overlap, mixed up a little, over some seconds; then say that the scan is over."""
        dice = self.world.random
        waiting, after = list(self.tasks), 0.0
        while waiting:
            portion = tuple(waiting[: dice.randint(1, 4)])
            waiting = waiting[dice.randint(1, len(portion)) :]
            after += dice.uniform(0, 1.0)
            self.world.at(after, lambda portion=portion: self._ask("distributor", SubmitRequest(tasks=portion)))
        end = ScanEnded(scan=self.scan.id, points=self.points)
        self.world.at(after + dice.uniform(-0.5, 2), lambda: self._ask("metadata", end))


class Physician:
    """Looks at the dead letters of a pipeline now and then, has most of them tried again, and drops some."""

    def __init__(self, world: World, pipeline: str) -> None:
        self.world, self.name, self.buffer = world, f"physician of {pipeline}", f"buffer.{pipeline}"
        world.actors.add(self.name)
        for _ in range(world.random.choice((0, 1, 3))):
            world.at(world.random.uniform(2, 30), self._visit)

    def _visit(self) -> None:
        self.world.ask(Question(self.name, self.buffer, DeadListRequest(), {}, self._read))

    def _read(self, answer: Message) -> None:
        assert isinstance(answer, DeadLetters), answer
        dice = self.world.random
        chosen = tuple(letter.task.id for letter in answer.letters if dice.random() < 0.8)
        wish = RetryRequest(tasks=chosen) if dice.random() < 0.85 else DropRequest(tasks=chosen)
        self.world.ask(Question(self.name, self.buffer, wish, {}, lambda _: None))


class Fleet:
    """Keeps some workers of one pipeline alive."""

    def __init__(self, world: World, pipeline: str, size: int) -> None:
        self.world, self.pipeline, self.born = world, pipeline, 0
        for _ in range(size):
            world.at(world.random.uniform(0, 2), self.hire)

    def hire(self, name: str = "") -> None:
        """Start a worker."""
        self.born += 1
        Worker(self, self.born, name or f"w{self.pipeline}{self.born}")

    def left(self, name: str, died: bool) -> None:
        """Replace a worker; now and then a new process has the name of one that died."""
        again = name if died and self.world.random.random() < 0.2 else ""
        self.world.at(self.world.random.uniform(0.01, 0.5), lambda: self.hire(again))


class Worker:
    """One process, one task: leased, computed, stored, acknowledged; or it raises, dies, hangs, or will not stop."""

    def __init__(self, fleet: Fleet, number: int, name: str) -> None:
        self.fleet, self.world, self.name = fleet, fleet.world, name
        self.actor = f"{name} #{number}"
        self.buffer, self.sorter = f"buffer.{fleet.pipeline}", f"sorter.{fleet.pipeline}"
        self.fate = "good"
        self.world.actors.add(self.actor)
        self._lease()

    def _ask(self, to: str, message: Message, then: Callable[[Message], None], arrays: Arrays | None = None) -> None:
        wait = getattr(message, "wait", 0.0)
        self.world.ask(Question(self.actor, to, message, arrays or {}, then, patience=wait + 1.5))

    def _lease(self) -> None:
        self._ask(self.buffer, LeaseRequest(worker=self.name, job="j", wait=1.0), self._leased)

    def _leave(self, died: bool = False) -> None:
        if self.actor in self.world.actors:
            self.world.actors.remove(self.actor)
            self.world.tell(f"{self.actor} {'dies' if died else 'leaves'}")
            self.fleet.left(self.name, died)

    def _leased(self, answer: Message) -> None:
        dice = self.world.random
        if not isinstance(answer, Lease):
            return self._lease()
        if dice.random() < self.world.weather.misfortune:
            self.fate = dice.choice(("dies", "hangs", "zombie", "raises", "handback", "dies late", "raises"))
        self.world.tell(f"{self.actor} will end: {self.fate}")
        if self.fate == "hangs":
            self.world.at(dice.uniform(LEASES.ttl, 3 * LEASES.ttl), lambda: self._finish(answer))
            return None
        self._beat(answer)
        self.world.at(dice.choice((0.02, 0.2, 1.0, 2.0)) * dice.uniform(0.5, 1.5), lambda: self._finish(answer))
        return None

    def _beat(self, lease: Lease) -> None:
        def again() -> None:
            if self.actor in self.world.actors:
                beat = Beat(worker=self.name, task=lease.task.id, attempt=lease.attempt)
                self.world.ask(Question(self.actor, self.buffer, beat, {}, heard, 1.0, until=self.world.now + LEASES.beat))
                self.world.at(LEASES.beat, again)

        def heard(answer: Message) -> None:
            if isinstance(answer, Stale) and self.fate != "zombie":
                self._leave()

        again()

    def _finish(self, lease: Lease) -> None:
        if self.actor not in self.world.actors:
            return
        match self.fate:
            case "dies":
                self._leave(died=True)
            case "raises":
                self._fail(lease, "fault")
            case "handback":
                self._fail(lease, "handback")
            case _:
                result = result_of(lease.task, lease.attempt, self.name)
                arrays = arrays_of(lease.task, lease.attempt) if result.outcome == "result" else {}
                self._ask(self.sorter, result, lambda answer: self._stored(lease, result, answer), arrays)

    def _fail(self, lease: Lease, cause: Cause) -> None:
        failed = TaskFailed(
            worker=self.name,
            task=lease.task.id,
            attempt=lease.attempt,
            cause=cause,
            reason=f"{cause} of attempt {lease.attempt}.",
        )
        self._ask(self.buffer, failed, lambda _: self._leave())

    def _stored(self, lease: Lease, result: r.StoreRequest, answer: Message) -> None:
        assert isinstance(answer, Ok), f"{result} was answered {answer}"
        if self.fate == "dies late":
            return self._leave(died=True)
        done = TaskDone(worker=self.name, task=lease.task.id, attempt=lease.attempt, outcome=result.outcome, seconds=0.1)
        self._ask(self.buffer, done, lambda _: self._leave())
        return None
