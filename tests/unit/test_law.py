"""The scaling law: its promises for any queue, and the numbers of the study."""

from hypothesis import given
from hypothesis import strategies as st

from cluster_side.scaling import law
from cluster_side.scaling.brake import FAILURES, Brake

counts = st.integers(0, 5000)
seconds = st.floats(0.001, 600)
rates = st.floats(0, 100)
demands = st.builds(law.Demand, counts, counts, st.floats(0, 600), rates)
fleets = st.builds(law.Fleet, st.integers(0, 300), st.integers(0, 300), seconds)


@given(demands, fleets, seconds)
def test_a_wish_is_never_negative_and_never_more_than_there_is_work(demand: law.Demand, fleet: law.Fleet, drain: float) -> None:
    assert 0 <= law.wish(demand, fleet, drain) <= law.work(demand, fleet.cold_start) + 1


@given(demands, fleets, seconds, st.integers(1, 100))
def test_more_ready_tasks_never_lower_the_wish(demand: law.Demand, fleet: law.Fleet, drain: float, more: int) -> None:
    longer = law.Demand(demand.ready + more, demand.leased, demand.service_time, demand.rate)
    assert law.wish(longer, fleet, drain) >= law.wish(demand, fleet, drain)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50)), st.integers(0, 60))
def test_the_share_is_fair_and_below_the_cap(wishes: dict[str, int], cap: int) -> None:
    given_ = law.share(wishes, cap)
    assert sum(given_.values()) == min(cap, sum(wishes.values()))
    assert all(0 <= given_[name] <= wishes[name] for name in wishes)
    for name, jobs in given_.items():
        if jobs < wishes[name]:
            assert jobs >= max(given_.values()) - 1, "somebody got more than one job more than a hungry one"


@given(demands, fleets, st.integers(0, 500))
def test_a_start_never_passes_the_target_and_an_empty_queue_starts_nothing(
    demand: law.Demand, fleet: law.Fleet, target: int
) -> None:
    decision = law.decide(demand, fleet, target)
    assert decision.start >= 0
    assert decision.start == 0 or fleet.workers + fleet.pending + decision.start <= target
    if demand.ready + demand.leased == 0 or fleet.workers + fleet.pending >= target:
        assert decision.start == 0
    assert decision.because


def test_nothing_to_do_wishes_for_nothing() -> None:
    assert law.wish(law.Demand(0, 0, 2.0), law.Fleet(4, 0, 3.0), 1.0) == 0


def test_latency_first_gives_a_worker_to_every_left_over_task() -> None:
    assert law.wish(law.Demand(40, 0, 10.0), law.Fleet(0, 0, 3.0), 1.0) == 40
    assert law.wish(law.Demand(40, 0, 1.0), law.Fleet(0, 0, 3.0), 10.0) == 4
    assert law.wish(law.Demand(6, 2, 1.0), law.Fleet(2, 0, 3.0), 1.0) == 4, "two workers serve six while a job starts"


def test_every_pipeline_with_work_gets_a_job() -> None:
    assert law.share({"xrf": 100, "xrd": 1, "dpc": 2, "idle": 0}, 6) == {"xrf": 3, "xrd": 1, "dpc": 2, "idle": 0}
    assert law.share({"xrf": 9, "xrd": 9}, 1) == {"xrf": 1, "xrd": 0}


def test_tasks_per_job_are_those_of_the_study() -> None:
    assert [law.tasks_per_job(mean, 6.8) for mean in (2, 10, 60, 180)] == [31, 7, 2, 1]


def test_the_brake_holds_after_failures_in_a_row_and_probes_with_one_job() -> None:
    brake = Brake()
    for _ in range(FAILURES - 1):
        brake.ended(well=False, now=0.0)
    assert brake.allows(3, 0, 0.0) == 3
    brake.ended(well=False, now=0.0)
    assert (brake.allows(3, 0, 4.9), brake.allows(3, 0, 5.0), brake.allows(3, 1, 5.0)) == (0, 1, 0)
    assert "5 jobs failed" in brake.why(1.0)
    brake.ended(well=False, now=5.0)
    assert brake.allows(3, 0, 14.9) == 0
    brake.ended(well=True, now=15.0)
    assert brake.allows(3, 0, 15.0) == 3
