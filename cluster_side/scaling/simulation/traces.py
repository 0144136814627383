"""Traces of a simulated beamline: tasks that arrive, announced scans, and CPUs per job.

The first three traces are those on which the law was tuned; the fourth was held out of that, but two numbers were set with it in
view (decision 0016); the fifth was written after everything was set, and nothing was changed for it. Randomness comes from the
generator that is passed in, so that a seed names a trace.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskArrival:
    """A task that becomes ready at `at` and takes `seconds` on one job."""

    at: float
    pipeline: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Announced:
    """A scan that is announced at `at`: `count` tasks from `begins` on, `rate` per second. It need not come true."""

    at: float
    pipeline: str
    begins: float
    count: int
    rate: float


@dataclass(frozen=True, slots=True)
class Trace:
    """All of it; `widths` are the CPUs of one job by pipeline, `cpus` is how many there are."""

    name: str
    arrivals: tuple[TaskArrival, ...]
    announced: tuple[Announced, ...]
    widths: Mapping[str, int]
    cpus: int
    static: Mapping[str, int]
    """A fixed fleet that fills all CPUs, for comparison: jobs by pipeline."""


def log_normal(chance: random.Random, median: float, sigma: float) -> float:
    """Return a log-normal number."""
    return median * math.exp(chance.gauss(0, sigma))


def steady(chance: random.Random) -> Trace:
    """10 lines per second of a long scan, 2 s each."""
    arrivals = tuple(TaskArrival(60 + i * 0.1, "xrf", log_normal(chance, 2.0, 0.3)) for i in range(6000))
    return Trace("steady", arrivals, (Announced(20.0, "xrf", 60.0, 6000, 10.0),), {"xrf": 1}, 96, {"xrf": 96})


def burst(chance: random.Random) -> Trace:
    """2000 tasks within 20 s, 10 s each."""
    arrivals = tuple(TaskArrival(60 + i * 0.01, "xrd", log_normal(chance, 10.0, 0.3)) for i in range(2000))
    return Trace("burst", arrivals, (Announced(20.0, "xrd", 60.0, 2000, 100.0),), {"xrd": 1}, 200, {"xrd": 200})


def mixed(chance: random.Random) -> Trace:
    """A slow map, eight bursts, and ptychography on eight CPUs."""
    arrivals = [TaskArrival(60 + i * 0.5, "xrf", log_normal(chance, 3.0, 0.3)) for i in range(1800)]
    announced = [Announced(20.0, "xrf", 60.0, 1800, 2.0), Announced(20.0, "ptycho", 70.0, 40, 0.05)]
    for scan in range(8):
        begins = 90 + scan * 110
        arrivals += [TaskArrival(begins + i * 0.02, "xrd", log_normal(chance, 5.0, 0.3)) for i in range(200)]
        announced.append(Announced(begins - 30, "xrd", begins, 200, 50.0))
    arrivals += [TaskArrival(70 + k * 20 + chance.random() * 8, "ptycho", log_normal(chance, 180.0, 0.4)) for k in range(40)]
    widths, static = {"xrf": 1, "xrd": 1, "ptycho": 8}, {"xrf": 16, "xrd": 48, "ptycho": 12}
    return Trace("mixed", _sorted(arrivals), tuple(announced), widths, 160, static)


def heldout(chance: random.Random) -> Trace:
    """Fast tasks with pauses, a scan that is aborted, and one that never comes."""
    arrivals: list[TaskArrival] = []
    announced = []
    for scan in range(3):
        begins = 60.0 + scan * 260
        arrivals += [TaskArrival(begins + i * 0.05, "xrf", log_normal(chance, 0.8, 0.5)) for i in range(4000)]
        announced.append(Announced(begins - 15, "xrf", begins, 4000, 20.0))
    for begins, share in ((150.0, 1.0), (400.0, 0.3), (600.0, 0.0)):
        arrivals += [TaskArrival(begins + i * 0.1, "xrd", log_normal(chance, 20.0, 0.6)) for i in range(int(300 * share))]
        announced.append(Announced(begins - 20, "xrd", begins, 300, 10.0))
    arrivals += [TaskArrival(100 + k * 60 + chance.random() * 20, "ptycho", log_normal(chance, 90.0, 0.5)) for k in range(12)]
    widths, static = {"xrf": 1, "xrd": 1, "ptycho": 8}, {"xrf": 24, "xrd": 64, "ptycho": 5}
    return Trace("heldout", _sorted(arrivals), tuple(announced), widths, 128, static)


def unseen(chance: random.Random) -> Trace:
    """Lines that come in clumps, a fly scan that speeds up, scans announced late, too long, or not at all."""
    arrivals: list[TaskArrival] = []
    for line in range(60):  # a clump of 24 each 9 s, announced only 4 s before
        begins = 45.0 + line * 9.0 + chance.uniform(0, 2.5)
        arrivals += [TaskArrival(begins + chance.random(), "xrf", log_normal(chance, 1.4, 0.4)) for _ in range(24)]
    at = 140.0
    for number in range(900):  # from 1 to 10 per second
        at += 1.0 / (1.0 + number / 100.0)
        arrivals.append(TaskArrival(at, "xrd", log_normal(chance, 6.0, 0.5)))
    arrivals += [TaskArrival(500.0 + i * 0.04, "xrd", log_normal(chance, 9.0, 0.4)) for i in range(350)]
    arrivals += [
        TaskArrival(120.0 + k * 45 + chance.expovariate(0.1), "ptycho", log_normal(chance, 70.0, 0.6)) for k in range(10)
    ]
    announced = (Announced(41.0, "xrf", 45.0, 1440, 2.7), Announced(110.0, "xrd", 140.0, 1800, 4.0))
    widths, static = {"xrf": 1, "xrd": 1, "ptycho": 8}, {"xrf": 20, "xrd": 60, "ptycho": 5}
    return Trace("unseen", _sorted(arrivals), announced, widths, 120, static)


TRACES: Mapping[str, Callable[[random.Random], Trace]] = {
    "steady": steady,
    "burst": burst,
    "mixed": mixed,
    "heldout": heldout,
    "unseen": unseen,
}


def _sorted(arrivals: list[TaskArrival]) -> tuple[TaskArrival, ...]:
    return tuple(sorted(arrivals, key=lambda one: (one.at, one.pipeline, one.seconds)))
