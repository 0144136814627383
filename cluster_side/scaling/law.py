"""From queues to the number of jobs: the scaling law.

Theory (per pipeline; q ready, l leased, n live slots, L cold start, T mean service time, r arrival rate, A = r·L):
tasks that nobody alive will have served when a job submitted now could work are left over, R = max(0, q + l + A − n·max(L, T)/T).
Little's law with headroom sustains the stream, W = r·T/0.85. The wish is min(max(W, min(n, q+l+A) + R·T/D), q + l + A), where
D, the drain time, is the one knob. Wishes share the cap max-min fairly. Source: scaling study, sections d.2 and d.6.

Clock policy: no clock; rates and times in seconds are arguments.
Invariants: never above the cap, never negative, never less for more ready tasks; an empty queue starts nothing (expected arrivals
alone keep workers wished for, but only a task that is really there starts one, so a finished scan never starts a last job).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

HEADROOM = 0.85
UNKNOWN_SERVICE_TIME = 1.0
MOST_TASKS = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits and what comes: tasks, seconds, and tasks per second. A service time of 0 is not known yet."""

    ready: int
    leased: int
    service_time: float
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who works: live slots, slots of jobs that are on their way, and how long a job takes to get there (seconds)."""

    workers: int
    pending: int
    cold_start: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed: jobs at once, and the drain time in seconds."""

    cap: int
    drain_within: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Have `target` slots, so start `start` more; `because` says why in one sentence."""

    target: int
    start: int
    because: str


def service_time(demand: Demand) -> float:
    """Return the mean time of a task, or the prior while it is not known."""
    return demand.service_time if demand.service_time > 0 else UNKNOWN_SERVICE_TIME


def work(demand: Demand, cold_start: float) -> float:
    """Return the tasks that are there or will be when a job submitted now could take one."""
    return demand.ready + demand.leased + max(0.0, demand.rate) * cold_start


def left_over(demand: Demand, fleet: Fleet) -> float:
    """Return the tasks that nobody alive will have served by then."""
    mean = service_time(demand)
    return max(0.0, work(demand, fleet.cold_start) - fleet.workers * max(fleet.cold_start, mean) / mean)


def wish(demand: Demand, fleet: Fleet, drain_within: float) -> int:
    """Return how many slots a pipeline would like to have."""
    mean, there = service_time(demand), work(demand, fleet.cold_start)
    sustain = max(0.0, demand.rate) * mean / HEADROOM
    drain = min(fleet.workers, there) + left_over(demand, fleet) * mean / max(mean, drain_within)
    return math.ceil(min(max(sustain, drain), there))


def jobs_for(slots_wished: int, slots: int) -> int:
    """Return how many jobs of `slots` slots that takes."""
    return -(-slots_wished // slots)


def share(wishes: Mapping[str, int], cap: int) -> dict[str, int]:
    """Return who gets how many jobs of `cap`: max-min fair, so everyone who wishes gets one as long as there are enough."""
    given = dict.fromkeys(wishes, 0)
    left = cap
    while left > 0 and (hungry := [name for name, wished in wishes.items() if given[name] < wished]):
        step = max(1, min(left // len(hungry), *(wishes[name] - given[name] for name in hungry)))
        for name in hungry[:left]:
            given[name] += step
            left -= step
    return given


def decide(demand: Demand, fleet: Fleet, target: int) -> Decision:
    """Return what to do about a pipeline that may have `target` slots."""
    have = fleet.workers + fleet.pending
    open_tasks = demand.ready + demand.leased
    start = max(0, min(target, open_tasks) - have)
    queue = f"{demand.ready} ready, {demand.leased} in work"
    if not open_tasks:
        return Decision(target, 0, "nothing to do")
    if start:
        return Decision(target, start, f"{queue}, {have} slots: starts {start} more")
    return Decision(target, 0, f"{queue}, {have} slots: enough")


def tasks_per_job(mean: float, overhead: float, efficiency: float = 0.9) -> int:
    """Return after how many tasks a slot's start has cost no more than 1 - `efficiency` of its time (times in seconds)."""
    known = mean if mean > 0 else UNKNOWN_SERVICE_TIME
    return max(1, min(MOST_TASKS, math.ceil(efficiency / (1 - efficiency) * overhead / known - 1e-9)))
