"""What `beamtide simulate` shows of a trace: means over seeds."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from cluster_side.scaling.simulation.batch import Load
from cluster_side.scaling.simulation.pilot import Pilot
from cluster_side.scaling.simulation.world import SimulationResult, World

COLUMNS = ("trace", "p50 s", "p95 s", "p99 s", "all done s", "waste slot-s", "calls", "jobs", "cancelled", "not done")


def averaged(trace: str, load: Load, seeds: int, cluster: Mapping[str, float]) -> dict[str, Any]:
    """Run a trace with some seeds and return the means: times in seconds, waste in CPU-seconds."""
    outcomes = []
    for seed in range(1, seeds + 1):
        world = World(trace, seed, load, **cluster)
        outcomes.append(world.run(Pilot(world)))

    def mean(of: Callable[[SimulationResult], float]) -> float:
        return round(statistics.fmean(of(outcome) for outcome in outcomes), 2)

    return {
        "trace": trace,
        "load": load,
        "p50": mean(lambda one: one.percentile(50)),
        "p95": mean(lambda one: one.percentile(95)),
        "p99": mean(lambda one: one.percentile(99)),
        "makespan": mean(lambda one: one.makespan),
        "waste": mean(lambda one: one.waste),
        "calls": mean(lambda one: one.calls),
        "jobs": mean(lambda one: one.jobs),
        "cancelled": mean(lambda one: one.cancelled),
        "undone": mean(lambda one: one.undone),
    }


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row as text."""
    return tuple(
        str(row[name]) for name in ("trace", "p50", "p95", "p99", "makespan", "waste", "calls", "jobs", "cancelled", "undone")
    )
