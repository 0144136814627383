"""Random stories of the autoscaler's core with a batch system that is late, forgets, repeats and hides: its promises hold.

Never more jobs than the caps; nothing is ordered while the picture is not good; an order and a cancellation of one pipeline never
follow each other within 3 s; a restart adopts everything by its token before it orders anything.
"""

import dataclasses
import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster_side.scaling.jobs.batch_calls import Start, Withdraw
from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launchers.base import Denied, EndCause, Phase, Seen, Sighting, SubmitAnswer, Submitted, Unclear, Unseen
from cluster_side.scaling.policy.budget import NodeHourBudget
from cluster_side.scaling.policy.forecast import Forecast
from cluster_side.scaling.policy.pipeline import PipelineState
from cluster_side.scaling.policy.planner import SETTLE, Ceilings, Planner
from cluster_side.scaling.scaling_loop import restored
from tests.builders.gauges import make_gauge
from tests.builders.sites import make_pipeline

NAMES = ("a", "b")
CAPS = Ceilings(6, 10)


class ScalingStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.number, self.life = 0.0, 0, 0
        self.ready = dict.fromkeys(NAMES, 0)
        self.cluster: dict[str, Sighting] = {}
        """What the batch system really has."""
        self.written_down: dict[str, Sighting] = {}
        self.submitted: dict[str, float] = {}
        self.cancelled: dict[str, float] = {}
        self.state_file: dict[str, bytes] = {}
        self.answer = "yes"
        self.twice = False
        self.begin()

    def begin(self) -> None:
        self.life += 1
        pipelines = {}
        for name in NAMES:
            config = make_pipeline(name, job={"slots": 2 if name == "b" else 1})
            pipelines[name] = PipelineState(config, 3.0, Forecast(config))
        self.planner = Planner(pipelines, Ledger("us"), CAPS, NodeHourBudget(1e9, 0.0), 1.0, str(self.life))
        restored(self.planner, {"order": self.state_file}, self.now)
        self.looked = False

    # --- the batch system -------------------------------------------------------------------------------------------

    def submit(self, act: Start) -> SubmitAnswer:
        order = act.order
        if self.answer == "no":
            return Denied(EndCause.LIMIT, "limit")
        lost = self.answer == "lost"
        times = 2 if self.twice and self.answer == "unclear" else 1
        ids = []
        for _ in range(0 if lost else order.count * times):
            self.number += 1
            ids.append(str(self.number))
            self.cluster[ids[-1]] = Sighting(ids[-1], order.token, Phase.PENDING)
        return Unclear("time-out") if lost or self.answer == "unclear" else Submitted(tuple(ids))

    def act(self) -> None:
        ledger = self.planner.ledger
        before = len(ledger.jobs) + sum(order.count for order in ledger.orders.values() if not order.ids)
        for one in self.planner.step(self.now):
            if isinstance(one, Start):
                name = one.order.pipeline
                assert self.looked, "ordered before a good picture was seen"
                assert self.planner.ledger.known
                assert self.now - self.cancelled.get(name, -SETTLE) >= SETTLE, "ordered right after a cancellation"
                before += one.order.count
                assert before <= CAPS.jobs, "over the cap"
                self.submitted[name] = self.now
                self.state_file[one.order.token] = json.dumps(dataclasses.asdict(one.order)).encode()
                answer = self.submit(one)
                self.planner.take(self.planner.ledger.answered(one.order.token, answer, self.now), self.now)
            else:
                self.take_back(one)
        self.keep()

    def take_back(self, act: Withdraw) -> None:
        for job in act.ids:
            if (seen := self.cluster.get(job)) is None:
                continue
            if seen.phase is Phase.PENDING and "more jobs" in act.reason:
                name = seen.token.rpartition(".")[2]
                assert self.now - self.submitted.get(name, -SETTLE) >= SETTLE, "cancelled right after an order"
                self.cancelled[name] = self.now
            del self.cluster[job]

    def keep(self) -> None:
        orders = self.planner.ledger.orders
        self.state_file = {token: json.dumps(dataclasses.asdict(order)).encode() for token, order in orders.items()}

    # --- what may happen --------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), ready=st.sampled_from([0, 1, 3, 20, 500]))
    def queue(self, name: str, ready: int) -> None:
        self.ready[name] = ready

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 61.0, 130.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(answer=st.sampled_from(["yes", "yes", "no", "unclear", "lost"]), twice=st.booleans())
    def mood(self, answer: str, twice: bool) -> None:
        self.answer, self.twice = answer, twice

    @rule()
    def decide(self) -> None:
        for name, pipeline in self.planner.pipelines.items():
            mine = {one.job: (0, 1) for one in self.cluster.values() if one.phase is Phase.RUNNING and one.token.endswith(name)}
            told = make_gauge(name, self.ready[name], mine)
            pipeline.gauged(told, self.now)
            self.planner.take(self.planner.ledger.workers_heard(told.jobs, self.now), self.now)
        self.act()

    @rule()
    def look(self) -> None:
        self.planner.listed(Seen(dict(self.cluster)), self.now)
        self.looked = self.looked or self.planner.ledger.known
        if self.planner.ledger.known:
            alive = {job for job, seen in self.cluster.items() if seen.phase in (Phase.PENDING, Phase.RUNNING)}
            assert alive <= self.planner.ledger.jobs.keys(), "a job that is there is not counted"
        self.keep()

    @rule()
    def remember(self) -> None:
        self.written_down = dict(self.cluster)

    @rule()
    def roll_back(self) -> None:
        """The controller is killed and comes back with what it last wrote down."""
        self.cluster = dict(self.written_down)

    @rule()
    def look_away(self) -> None:
        self.planner.listed(Unseen("squeue: timed out"), self.now)
        for pipeline in self.planner.pipelines.values():
            pipeline.gauged(make_gauge(pipeline.name, 500, {}), self.now)
        assert not [one for one in self.planner.step(self.now) if isinstance(one, Start)], "ordered without a picture"
        self.keep()

    @rule()
    def look_at_nothing(self) -> None:
        """An empty answer with exit code 0, while workers are heard."""
        working = [one for one in self.planner.ledger.jobs.values() if one.heard is not None and self.now - one.heard < 5]
        self.planner.listed(Seen({}), self.now)
        self.looked = self.looked or self.planner.ledger.known
        if len(working) > 2:
            assert not self.planner.ledger.known, "an empty picture was believed"
        self.keep()

    @precondition(lambda self: self.cluster)
    @rule(data=st.data(), how=st.sampled_from(["run", "end", "fail", "vanish", "requeue"]))
    def change(self, data: st.DataObject, how: str) -> None:
        job = data.draw(st.sampled_from(sorted(self.cluster)))
        seen = self.cluster[job]
        if how == "run" and seen.phase is Phase.PENDING:
            self.cluster[job] = dataclasses.replace(seen, phase=Phase.RUNNING)
        elif how == "requeue" and seen.phase is Phase.RUNNING:
            self.cluster[job] = dataclasses.replace(seen, phase=Phase.PENDING, restarts=seen.restarts + 1)
        elif how == "vanish":
            del self.cluster[job]
        elif how in ("end", "fail"):
            ended = Phase.ENDED if how == "end" else Phase.FAILED
            self.cluster[job] = dataclasses.replace(seen, phase=ended, cause=EndCause.DONE if how == "end" else EndCause.CODE)

    @rule()
    def restart(self) -> None:
        """SIGKILL, and a new autoscaler with the journal of the old one."""
        alive = {job for job, seen in self.cluster.items() if seen.phase in (Phase.PENDING, Phase.RUNNING)}
        self.begin()
        self.decide()
        self.look()
        assert alive <= self.planner.ledger.jobs.keys(), "a job was not adopted"

    @invariant()
    def promises(self) -> None:
        self.planner.ledger.check()


TestScalingStory = ScalingStory.TestCase
TestScalingStory.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_crash_between_asking_and_the_answer_costs_a_look_and_no_second_order() -> None:
    story = ScalingStory()
    story.queue("a", 3)
    story.look()
    story.mood("unclear", twice=False)
    story.decide()
    assert len(story.cluster) == 3
    story.restart()
    story.mood("yes", twice=False)
    story.decide()
    assert len(story.cluster) == 3


def test_an_order_that_was_never_accepted_is_given_up_after_a_minute_of_looking() -> None:
    story = ScalingStory()
    story.queue("a", 3)
    story.look()
    story.mood("lost", twice=False)
    story.decide()
    story.mood("yes", twice=False)
    story.wait(3.0)
    story.look()
    story.queue("a", 500)
    story.decide()
    assert not story.cluster, "ordered more although the first order may still turn up"
    story.queue("a", 3)
    story.wait(61.0)
    story.look()
    story.wait(10.0)
    story.decide()
    assert len(story.cluster) == 3


def test_an_order_whose_fate_is_unclear_fills_the_cap_and_outlives_a_restart() -> None:
    story = ScalingStory()
    story.queue("a", 500)
    story.look()
    story.mood("lost", twice=False)
    story.decide()
    story.mood("yes", twice=False)
    story.queue("b", 500)
    story.decide()
    assert not story.cluster, "more than the cap if the first order turns up"
    story.restart()
    story.decide()
    assert not story.cluster, "forgotten by the restart"


def test_jobs_that_were_just_ordered_are_not_cancelled_at_once() -> None:
    story = ScalingStory()
    story.queue("a", 3)
    story.look()
    story.decide()
    story.look()
    story.queue("a", 0)
    for _ in range(3):
        story.decide()
        assert len(story.cluster) == 3
        story.wait(0.9)
    for _ in range(3):
        story.wait(1.0)
        story.decide()
    assert not story.cluster


def test_an_empty_answer_is_not_believed_while_workers_are_heard() -> None:
    story = ScalingStory()
    story.queue("a", 4)
    story.look()
    story.decide()
    story.cluster = {job: dataclasses.replace(seen, phase=Phase.RUNNING) for job, seen in story.cluster.items()}
    story.look()
    story.queue("a", 0)
    story.decide()
    for _ in range(3):
        story.look_at_nothing()
    assert not story.planner.ledger.known
    assert len(story.planner.ledger.jobs) == 4


def test_an_order_that_was_carried_out_twice_is_taken_back_in_part() -> None:
    story = ScalingStory()
    story.queue("a", 3)
    story.look()
    story.mood("unclear", twice=True)
    story.decide()
    assert len(story.cluster) == 6
    story.look()
    for _ in range(8):
        story.wait(1.0)
        story.decide()
    assert len(story.cluster) == 3


def test_a_job_that_came_back_under_its_id_is_counted_again() -> None:
    story = ScalingStory()
    story.queue("a", 1)
    story.look()
    story.decide()
    (job,) = story.cluster
    story.cluster[job] = dataclasses.replace(story.cluster[job], phase=Phase.FAILED, cause=EndCause.PREEMPTED)
    story.look()
    assert not story.planner.ledger.jobs
    story.cluster[job] = dataclasses.replace(story.cluster[job], phase=Phase.RUNNING, restarts=1)
    story.look()
    assert story.planner.ledger.jobs[job].sighting.job == f"{job}+1"


def test_jobs_that_a_controller_brings_back_from_its_disk_fill_the_cap() -> None:
    story = ScalingStory()
    story.queue("a", 500)
    story.look()
    story.decide()
    story.remember()
    story.cluster = {job: dataclasses.replace(seen, phase=Phase.ENDED) for job, seen in story.cluster.items()}
    story.look()
    assert not story.planner.ledger.jobs
    story.roll_back()
    story.look()
    story.decide()
    assert len(story.cluster) == CAPS.jobs


def test_ids_that_a_controller_gives_away_again_belong_to_the_new_order() -> None:
    ledger = Ledger("us")
    for number, last in enumerate((Phase.ENDED, Phase.RUNNING, Phase.RUNNING)):
        token = f"us.{number}.1.a"
        ledger.asked(Order(token, "a", 2, 1, 0.0))
        ledger.answered(token, Submitted(("1", "2")), 0.0)
        ledger.check()
        assert [job.order.token for job in ledger.jobs.values()] == [token, token]
        ledger.listed(Seen({job: Sighting(job, token, last) for job in ("1", "2")}), 1.0)
        ledger.check()
        assert ledger.alive() == (2 if last is Phase.RUNNING else 0)


def test_a_job_that_runs_without_a_worker_is_taken_back() -> None:
    story = ScalingStory()
    story.queue("a", 1)
    story.look()
    story.decide()
    (job,) = story.cluster
    story.cluster[job] = dataclasses.replace(story.cluster[job], phase=Phase.RUNNING)
    story.look()
    story.wait(121.0)
    assert [act.ids for act in story.planner.step(story.now) if isinstance(act, Withdraw)] == [(job,)]
