"""Random stories of a job: never too many workers, every lost lease is reported once, and it always comes to an end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamtide.messages.base import Seconds
from cluster_side.worker.job.job_policy import (
    CRASHES,
    GRACE,
    HAND_BACK,
    Event,
    Exit,
    JobPolicy,
    ReportLoss,
    SignalTerm,
    StartWorker,
    StopWorker,
    TimePassed,
    WorkerEnded,
    WorkerLeased,
)


class JobStory(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 3), tasks=st.integers(0, 4))
    def begin(self, slots: int, tasks: int) -> None:
        self.now, self.policy = 0.0, JobPolicy(slots, tasks)
        self.alive: dict[int, str] = {}
        self.reported: list[str] = []
        self.lost: list[str] = []
        self.leases = 0
        self.asked: set[int] = set()
        self.exits: list[Exit] = []
        self.drained_at: float | None = None
        self.tell(TimePassed())

    def tell(self, event: Event) -> None:
        for effect in self.policy.handle(event, Seconds(self.now)):
            assert not self.exits, "something after the exit"
            match effect:
                case StartWorker(number):
                    assert self.drained_at is None, "a worker was started while the job leaves"
                    self.alive[number] = ""
                case ReportLoss(task):
                    self.reported.append(task)
                case StopWorker(number):
                    self.asked.add(number)
                case Exit():
                    assert not self.alive
                    self.exits.append(effect)

    @precondition(lambda self: not self.exits and "" in self.alive.values())
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([number for number, task in self.alive.items() if not task]))
        self.leases += 1
        self.alive[number] = f"task {self.leases}"
        self.tell(WorkerLeased(number, self.alive[number], 1, f"worker {number}"))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), word=st.sampled_from(["done", "failed", "stale", "silent", "notask", "leave", ""]))
    def end(self, data: st.DataObject, word: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.alive)))
        task = self.alive.pop(number)
        said = word if task or word in ("notask", "silent", "leave") else ""
        if task and said in ("notask", "leave", "silent", ""):
            said = "" if said in ("notask", "leave") else said
            self.lost.append(task)
        self.tell(WorkerEnded(number, said, "" if said else "was killed by signal 9 (SIGKILL)"))  # type: ignore[arg-type]

    @precondition(lambda self: not self.exits)
    @rule()
    def leave(self) -> None:
        self.drained_at = self.now if self.drained_at is None else self.drained_at
        waiting = {number for number, task in self.alive.items() if not task}
        self.tell(SignalTerm())
        assert waiting <= self.asked, "a worker that waits was not told to leave"

    @rule(seconds=st.sampled_from([0.0, 1.0, GRACE, HAND_BACK]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TimePassed())
        if self.drained_at is not None and self.now >= self.drained_at + GRACE:
            assert set(self.alive) <= self.asked, "a busy worker was not asked to hand back"

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "life"):
            return
        self.policy.check()
        assert len(self.alive) <= self.policy.slots
        assert not self.policy.tasks or self.leases <= self.policy.tasks
        assert self.reported == self.lost
        assert bool(self.exits) == (not self.alive)


TestJobStory = JobStory.TestCase
TestJobStory.settings = settings(max_examples=100, stateful_step_count=30)


def test_a_job_that_is_not_wanted_lets_the_busy_ones_finish_and_starts_nobody() -> None:
    policy = JobPolicy(2)
    assert policy.handle(TimePassed(), Seconds(0)) == [StartWorker(1), StartWorker(2)]
    policy.handle(WorkerLeased(1, "t", 1, "w"), Seconds(0))
    assert policy.handle(WorkerEnded(2, "leave"), Seconds(1)) == []
    assert policy.handle(TimePassed(), Seconds(1000)) == []
    assert policy.handle(WorkerEnded(1, "done"), Seconds(1001)) == [Exit(0)]


def test_strict_shape_takes_one_task_and_exits() -> None:
    policy = JobPolicy(1, 1)
    assert policy.handle(TimePassed(), Seconds(0)) == [StartWorker(1)]
    assert policy.handle(WorkerLeased(1, "t", 1, "w"), Seconds(0)) == []
    assert policy.handle(WorkerEnded(1, "done"), Seconds(1)) == [Exit(0)]


def test_workers_that_die_before_they_have_a_task_end_the_job_with_a_sentence() -> None:
    policy = JobPolicy(1)
    policy.handle(TimePassed(), Seconds(0))
    for number in range(1, CRASHES):
        assert policy.handle(WorkerEnded(number, "", "exited with code 70"), Seconds(0)) == [StartWorker(number + 1)]
    (end,) = policy.handle(WorkerEnded(CRASHES, "", "exited with code 70"), Seconds(0))
    assert isinstance(end, Exit)
    assert (end.code, "exited with code 70" in end.reason) == (1, True)
