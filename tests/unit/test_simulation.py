"""The scaling law in virtual time: what it reached stays reached, and its promises hold whatever the cluster does."""

import pytest

from cluster_side.scaling.simulation import show
from cluster_side.scaling.simulation.pilot import Pilot
from cluster_side.scaling.simulation.world import SimulationResult, World, interpolated


def flown(trace: str, seed: int = 1, **cluster: float) -> tuple[SimulationResult, Pilot, World]:
    world = World(trace, seed, **cluster)  # type: ignore[arg-type]
    pilot = Pilot(world)
    return world.run(pilot), pilot, world


def test_a_burst_is_nearly_as_quick_as_without_any_start_delay_and_wastes_little() -> None:
    outcome, pilot, _ = flown("burst")
    assert outcome.undone == 0
    assert outcome.percentile(95) == pytest.approx(88.3, rel=0.05), "an independent simulation gave 87.7 s, its oracle 85.8 s"
    assert outcome.waste < 1.1 * 3900
    assert outcome.calls < 20
    pilot.planner.ledger.check()


def test_an_announcement_saves_a_cold_start() -> None:
    world = World("burst", 1)
    blind = world.run(Pilot(world, believe=False))
    assert blind.percentile(95) > flown("burst")[0].percentile(95) + 4.0


def test_limits_failures_and_preemption_lose_no_task() -> None:
    outcome, pilot, world = flown("burst", most=60, fails=0.2, preempted_per_hour=20.0)
    assert outcome.undone == 0
    assert sum(map(len, outcome.latencies.values())) == len(world.trace.arrivals)
    pilot.planner.ledger.check()


def test_a_limit_that_nobody_told_us_of_is_learned() -> None:
    world = World("burst", 1, most=60)
    pilot = Pilot(world)
    pilot.planner.caps = type(pilot.planner.caps)(1000, world.trace.cpus)
    outcome = world.run(pilot)
    assert outcome.undone == 0
    assert pilot.planner.learned.jobs is not None
    assert outcome.calls < 400, "it does not hammer"


def test_what_is_shown_is_the_mean_of_the_runs() -> None:
    row = show.averaged("burst", "idle", 1, {})
    assert (row["trace"], row["undone"]) == ("burst", 0)
    assert len(show.cells(row)) == len(show.COLUMNS)
    assert (interpolated([], 50), interpolated([1.0, 3.0], 50)) == (0.0, 2.0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("trace", "p95", "waste"),
    [("steady", 3.3, 11_900), ("burst", 87.7, 8_200), ("mixed", 16.2, 32_300), ("heldout", 2.3, 35_000)],
)
def test_the_law_reaches_what_an_independent_simulation_reached(trace: str, p95: float, waste: float) -> None:
    row = show.averaged(trace, "normal", 3 if trace == "heldout" else 5, {})
    assert row["p95"] <= 1.05 * p95
    assert row["waste"] <= 1.1 * waste
    assert row["undone"] == 0
