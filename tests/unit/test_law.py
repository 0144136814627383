"""The scaling law: its promises for any queue, and known numbers."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster_side.scaling.policy import law
from cluster_side.scaling.policy.law import Claim

counts = st.integers(0, 5000)
seconds = st.floats(0.001, 600)
rates = st.floats(0, 100)
demands = st.builds(law.Demand, counts, counts, st.floats(0, 600), rates, st.none() | st.floats(0, 1000))
fleets = st.builds(law.Fleet, st.integers(0, 300), st.integers(0, 300), seconds)


@given(demands, fleets, seconds)
def test_a_wish_is_never_negative_and_never_more_than_there_is_work(demand: law.Demand, fleet: law.Fleet, drain: float) -> None:
    assert 0 <= law.wish(demand, fleet, drain) <= law.work(demand, fleet.cold_start) + 1


@given(demands, fleets, seconds, st.integers(1, 100), st.booleans())
def test_more_ready_tasks_never_lower_the_wish(
    demand: law.Demand, fleet: law.Fleet, drain: float, more: int, strict: bool
) -> None:
    longer = replace(demand, ready=demand.ready + more)
    assert law.wish(longer, fleet, drain, strict=strict) >= law.wish(demand, fleet, drain, strict=strict)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50)), st.integers(0, 60))
def test_the_share_is_fair_and_below_the_cap(wanted: dict[str, int], cap: int) -> None:
    given_ = law.share({name: Claim(jobs) for name, jobs in wanted.items()}, cap)
    assert sum(given_.values()) == min(cap, sum(wanted.values()))
    assert all(0 <= given_[name] <= wanted[name] for name in wanted)
    for name, jobs in given_.items():
        if jobs < wanted[name]:
            assert jobs >= max(given_.values()) - 1, "somebody got more than one job more than a hungry one"


@given(st.dictionaries(st.sampled_from("abcdef"), st.builds(Claim, st.integers(0, 50), st.integers(1, 16))), st.integers(0, 200))
def test_wide_jobs_share_in_whole_jobs_and_nothing_that_fits_is_left(wanted: dict[str, Claim], cap: int) -> None:
    given_ = law.share(wanted, cap)
    left = cap - sum(given_[name] * wish.width for name, wish in wanted.items())
    assert left >= 0
    assert all(0 <= given_[name] <= wish.jobs for name, wish in wanted.items())
    assert not [name for name, wish in wanted.items() if given_[name] < wish.jobs and wish.width <= left and wish.width > 1]


@given(demands, fleets, st.integers(0, 500), st.floats(0, 1))
def test_a_start_never_passes_the_target_and_its_spare(demand: law.Demand, fleet: law.Fleet, target: int, spare: float) -> None:
    decision = law.decide(demand, fleet, target, spare=spare)
    assert 0 <= decision.surplus <= fleet.pending
    most = target + math.ceil(spare * max(0, target - fleet.workers))
    assert decision.start == 0 or fleet.workers + fleet.pending + decision.start <= most
    assert not (decision.start and decision.surplus)
    if demand.ready + demand.leased == 0 and not demand.expected:
        assert decision.start == 0
    assert decision.because


def test_nothing_to_do_wishes_for_nothing() -> None:
    assert law.wish(law.Demand(0, 0, 2.0), law.Fleet(4, 0, 3.0), 1.0) == 0


def test_latency_first_gives_a_worker_to_every_left_over_task() -> None:
    assert law.wish(law.Demand(40, 0, 10.0), law.Fleet(0, 0, 3.0), 1.0) == 40
    assert law.wish(law.Demand(40, 0, 1.0), law.Fleet(0, 0, 3.0), 10.0) == 4
    assert law.wish(law.Demand(6, 2, 1.0), law.Fleet(2, 0, 3.0), 1.0) == 4, "two workers serve six while a job starts"


def test_every_pipeline_with_work_gets_a_job() -> None:
    wanted = {"xrf": Claim(100), "xrd": Claim(1), "dpc": Claim(2), "idle": Claim(0)}
    assert law.share(wanted, 6) == {"xrf": 3, "xrd": 1, "dpc": 2, "idle": 0}
    assert law.share({"xrf": Claim(9), "xrd": Claim(9)}, 1) == {"xrf": 1, "xrd": 0}
    assert law.share({"xrf": Claim(100), "ptycho": Claim(9, 8)}, 40) == {"xrf": 24, "ptycho": 2}
    assert law.share({"xrf": Claim(100), "ptycho": Claim(9, 8)}, 9) == {"xrf": 1, "ptycho": 1}


def test_announced_work_has_jobs_before_it_is_there_and_a_guess_has_not() -> None:
    fleet = law.Fleet(0, 0, 4.0)
    announced = law.decide(law.Demand(0, 0, 1.0, 10.0, 40.0), fleet, 40)
    assert (announced.start, "40 announced" in announced.because) == (40, True)
    assert law.decide(law.Demand(0, 0, 1.0, 10.0), fleet, 40).start == 0
    assert law.wish(law.Demand(0, 0, 1.0, 10.0), fleet, 1.0) == 0, "what starts nothing claims nothing"


def test_spare_jobs_wait_beyond_the_target_and_surplus_ones_are_named() -> None:
    demand = law.Demand(100, 0, 10.0)
    assert law.decide(demand, law.Fleet(10, 0, 3.0), 20, spare=0.3).start == 13
    assert law.decide(demand, law.Fleet(10, 13, 3.0), 20, spare=0.3) == law.Decision(
        20, 0, "100 ready, 0 in work, 23 slots: enough", 0
    )
    assert law.decide(demand, law.Fleet(10, 13, 3.0), 20).surplus == 3
    assert law.decide(law.Demand(2, 0, 1.0), law.Fleet(4, 3, 3.0), 2).surplus == 3


def test_a_job_of_one_task_each_wants_one_for_every_task() -> None:
    assert law.wish(law.Demand(40, 3, 180.0), law.Fleet(20, 0, 7.0), 1.0, strict=True) == 43


def test_walltime_is_what_tasks_need_in_whole_minutes() -> None:
    assert law.walltime(30, 4.0, 7.0) == 240
    assert law.walltime(1, 0.0, 7.0) == 120


def test_tasks_per_job_for_an_efficiency_of_90_percent() -> None:
    assert [law.tasks_per_job(mean, 6.8) for mean in (2, 10, 60, 180)] == [31, 7, 2, 1]
