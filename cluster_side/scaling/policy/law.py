"""The scaling law: from queues to the number of jobs.

Theory (per pipeline; q ready, l leased, n live slots, L cold start, T mean service time, r arrival rate, A arrivals within L:
what scans have announced for then, else r·L):
the tasks that the present workers will not have finished when a job submitted now could work are R = max(0, q + l + A − n·max(L,
T)/T). Little's law with headroom sustains the stream, W = r·T/0.85. The wish is min(max(W, min(n, q+l+A) + R·T/D), q + l + A),
where D, the drain time, is the only parameter. One task per job (strict) wishes for q + l + A. Wishes share the cap max-min
fairly. For a target above the live slots, spare jobs may be pending: the batch system decides which of them starts first (late
binding).
Source: J. D. C. Little, Oper. Res. 9 (1961) 383; ADR 0016.

Clock policy: no clock; rates and times in seconds are arguments.
Invariants: never above the cap, never negative, never less for more ready tasks; an empty queue starts nothing, unless a scan has
announced work (arrivals expected from a measured rate keep workers, but never start one, so a finished scan never starts a last
job).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

HEADROOM = 0.85
UNKNOWN_SERVICE_TIME = 5.0
MOST_TASKS = 1000
EFFICIENCY = 0.9
SPARE = 0.3
"""Share of the missing slots that may be pending beyond the target where the batch system lets jobs wait."""
RESERVE_S = 60.0
"""Walltime beyond the time that tasks need."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of a pipeline: tasks, seconds, and tasks per second. A service time of 0 is not known yet.

    `expected` counts the tasks that announced scans will have made within a cold start; None where nothing is announced. `rate`
    is then theirs.
    """

    ready: int
    leased: int
    service_time: float
    rate: float = 0.0
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The supply: live slots, slots of pending and starting jobs, and the cold start (seconds)."""

    workers: int
    pending: int
    cold_start: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish for so many jobs of so many units (slots, CPUs) each."""

    jobs: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """Have `target` slots: `start` more, or `surplus` pending ones too many; `because` says why in one sentence."""

    target: int
    start: int
    because: str
    surplus: int = 0


def service_time(demand: Demand) -> float:
    """Return the mean time of a task, or the prior while it is not known."""
    return demand.service_time if demand.service_time > 0 else UNKNOWN_SERVICE_TIME


def arrivals(demand: Demand, cold_start: float) -> float:
    """Return the tasks that will arrive before a job submitted now can take one."""
    return demand.expected if demand.expected is not None else max(0.0, demand.rate) * cold_start


def work(demand: Demand, cold_start: float) -> float:
    """Return the tasks that exist or will arrive by then."""
    return demand.ready + demand.leased + arrivals(demand, cold_start)


def left_over(demand: Demand, fleet: Fleet) -> float:
    """Return the tasks that the live slots will not have finished by then."""
    mean = service_time(demand)
    return max(0.0, work(demand, fleet.cold_start) - fleet.workers * max(fleet.cold_start, mean) / mean)


def wish(demand: Demand, fleet: Fleet, drain_within: float, *, strict: bool = False) -> int:
    """Return how many slots a pipeline would like to have; `strict` jobs take one task each, so every task wants its own.

    Arrivals expected from a measured rate start nothing (`decide`), so they also take no share from others.
    """
    if demand.ready + demand.leased == 0 and not demand.expected:
        return 0
    mean, there = service_time(demand), work(demand, fleet.cold_start)
    if strict:
        return math.ceil(there - 1e-9)
    sustain = max(0.0, demand.rate) * mean / HEADROOM
    drain = min(fleet.workers, there) + left_over(demand, fleet) * mean / max(mean, drain_within)
    return math.ceil(min(max(sustain, drain), there) - 1e-9)


def jobs_for(slots_wished: int, slots: int) -> int:
    """Return how many jobs of `slots` slots that takes."""
    return -(-slots_wished // slots)


def share(wishes: Mapping[str, Claim], cap: int) -> dict[str, int]:
    """Return how many jobs each pipeline gets of `cap` units: max-min fair in units, in whole jobs.

    Every pipeline with a wish gets one job first, wide ones before narrow ones, as long as they fit; the remainder goes to
    wide jobs first, too, since narrow ones fit anywhere.
    """
    order = sorted(wishes, key=lambda name: -wishes[name].width)
    given, left = dict.fromkeys(wishes, 0), cap
    for name in order:
        if wishes[name].jobs > 0 and wishes[name].width <= left:
            given[name], left = 1, left - wishes[name].width
    level = _water_level({name: wishes[name].jobs * wishes[name].width for name in order}, cap)
    for name in order:
        fair = int(min(level, wishes[name].jobs * wishes[name].width) / wishes[name].width + 1e-9)
        more = max(0, min(fair - given[name], left // wishes[name].width))
        given[name], left = given[name] + more, left - more * wishes[name].width
    while hungry := [name for name in order if given[name] < wishes[name].jobs and wishes[name].width <= left]:
        name = min(hungry, key=lambda name: (-wishes[name].width, given[name]))
        given[name], left = given[name] + 1, left - wishes[name].width
    return given


def decide(demand: Demand, fleet: Fleet, target: int, *, spare: float = 0.0) -> Decision:
    """Return what to do about a pipeline that may have `target` slots; `spare` allows as big a share of the missing beyond it."""
    have, open_tasks = fleet.workers + fleet.pending, demand.ready + demand.leased
    expected = 0 if demand.expected is None else math.ceil(demand.expected - 1e-9)
    useful = min(target, open_tasks + expected)
    goal = useful + math.ceil(spare * max(0, useful - fleet.workers) - 1e-9)
    start = max(0, goal - have) if useful > fleet.workers else 0
    surplus = min(fleet.pending, max(0, have - goal))
    queue = f"{demand.ready} ready, {demand.leased} in work" + (f", {expected} announced" if expected else "")
    if not open_tasks and not expected:
        return Decision(target, 0, "nothing to do", surplus)
    if start:
        return Decision(target, start, f"{queue}, {have} slots: starts {start} more")
    return Decision(target, 0, f"{queue}, {have} slots: enough", surplus)


def tasks_per_job(mean: float, overhead: float, efficiency: float = EFFICIENCY) -> int:
    """Return after how many tasks a slot's start has cost no more than 1 - `efficiency` of its time (times in seconds)."""
    known = mean if mean > 0 else UNKNOWN_SERVICE_TIME
    return max(1, min(MOST_TASKS, math.ceil(efficiency / (1 - efficiency) * overhead / known - 1e-9)))


def walltime(tasks_per_slot: int, longest: float, cold_start: float) -> int:
    """Return the walltime to ask for, in seconds and whole minutes; `longest` is the 99th percentile of a task's time."""
    known = longest if longest > 0 else UNKNOWN_SERVICE_TIME
    return 60 * math.ceil((tasks_per_slot * known + cold_start + RESERVE_S) / 60)


def _water_level(units: Mapping[str, int], cap: int) -> float:
    """Return how many units each may have at most, so that all together have `cap` (max-min fairness)."""
    left, hungry = float(cap), sorted(units.values())
    for position, wanted in enumerate(hungry):
        if wanted * (len(hungry) - position) >= left:
            return left / (len(hungry) - position)
        left -= wanted
    return float(cap)
