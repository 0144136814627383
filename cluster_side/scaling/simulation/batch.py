"""A simulated Slurm: submit calls, waiting, scheduling passes, slow and failing starts, preemption, limits.

Theory: calls are served one after the other; a job is eligible after a random wait (how busy the cluster is); a pass every 2 s
starts up to 100 jobs for which there is room; a start costs a prolog, a container and imports; a job that ended keeps its CPUs
for an epilog. Clock policy: virtual seconds, from the caller's event
queue.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from cluster_side.scaling.simulation.traces import log_normal

Load = Literal["idle", "normal", "busy"]
WAITS: Mapping[Load, tuple[float, float]] = MappingProxyType({"idle": (0.0, 1.0), "normal": (0.2, 20.0), "busy": (0.6, 60.0)})
"""Which share of jobs waits, and for how long (mean of an exponential, seconds)."""
CALL, CYCLE, DEPTH, EPILOG, MOST = 0.08, 2.0, 100, 1.0, 1000
START, SPREAD, STRAGGLERS, STRAGGLE, FAILS = 4.0, 0.4, 0.03, 15.0, 0.005
At = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class SimulatedJob:
    """One job. `state` is pending, starting, idle, busy, or over."""

    number: int
    token: str
    pipeline: str
    width: int
    tasks: int
    submitted: float
    eligible: float
    state: str = "pending"
    started: float = 0.0
    served: int = 0
    ended: str = ""


@dataclass(slots=True)
class Batch:
    """The cluster. `at` puts something into the event queue; `registered` and `lost` are told when a job works, and when it dies.

    `partitions` are CPUs by name; a job runs where there is room first, in their order. `preempted_per_hour` kills running jobs.
    """

    now: Callable[[], float]
    at: At
    chance: random.Random
    partitions: dict[str, int]
    load: Load = "normal"
    preempted_per_hour: float = 0.0
    fails: float = FAILS
    most: int = MOST
    registered: Callable[[SimulatedJob], None] = lambda job: None
    lost: Callable[[SimulatedJob], None] = lambda job: None
    jobs: dict[int, SimulatedJob] = field(default_factory=dict)
    over: list[SimulatedJob] = field(default_factory=list)
    calls: int = 0
    submitted: int = 0
    cancelled: int = 0
    allocated: float = 0.0
    """CPU-seconds from start to the end of the epilog."""
    _where: dict[int, str] = field(default_factory=dict)
    _channel: float = 0.0
    _cycle_set: bool = False
    _last_cycle: float = -9.0

    def submit(self, pipeline: str, width: int, tasks: int, count: int, token: str = "") -> list[SimulatedJob]:
        """Take one (array) submission; what is beyond the limit is refused: an empty list."""
        self.calls += 1
        if len(self.jobs) + count > self.most:
            return []
        self._channel = max(self._channel, self.now()) + CALL
        return [self._enter(pipeline, width, tasks, token) for _ in range(count)]

    def cancel(self, jobs: list[SimulatedJob]) -> None:
        """Cancel jobs in one call; those that run are lost to their task."""
        self.calls += 1
        for job in jobs:
            if job.state == "pending":
                self.cancelled += 1
                self.jobs.pop(job.number, None)
                self._over(job, "cancelled")
            elif job.state != "over":
                self._kill(job, "cancelled")

    def leave(self, job: SimulatedJob) -> None:
        """End a job from inside."""
        self._end(job, "done")

    def close(self, tail: Callable[[SimulatedJob], float]) -> None:
        """Charge what still runs, each for `tail` seconds more."""
        for job in list(self.jobs.values()):
            if job.state != "pending":
                self.allocated += (self.now() - job.started + tail(job) + EPILOG) * job.width

    def _enter(self, pipeline: str, width: int, tasks: int, token: str) -> SimulatedJob:
        share, mean = WAITS[self.load]
        wait = self.chance.uniform(0.2, 3.0)
        if self.chance.random() < share:
            wait += self.chance.expovariate(1 / mean)
        self.submitted += 1
        job = SimulatedJob(self.submitted, token, pipeline, width, tasks, self._channel, self._channel + wait)
        self.jobs[job.number] = job
        self.at(job.eligible, self._kick)
        return job

    def _kick(self) -> None:
        if not self._cycle_set:
            self._cycle_set = True
            self.at(max(self.now(), self._last_cycle + CYCLE), self._cycle)

    def _cycle(self) -> None:
        self._cycle_set, self._last_cycle = False, self.now()
        started, more = 0, False
        for job in [job for job in self.jobs.values() if job.state == "pending" and job.eligible <= self.now() + 1e-9]:
            room = next((name for name, free in self.partitions.items() if free >= job.width), None)
            if room is None:
                continue
            if started >= DEPTH:
                more = True
                break
            started += 1
            self._begin(job, room)
        if more:
            self._kick()

    def _begin(self, job: SimulatedJob, partition: str) -> None:
        self.partitions[partition] -= job.width
        self._where[job.number] = partition
        job.state, job.started = "starting", self.now()
        takes = log_normal(self.chance, START, SPREAD) + (STRAGGLE if self.chance.random() < STRAGGLERS else 0.0)
        if self.chance.random() < self.fails:
            self.at(self.now() + takes / 2, lambda: self._end(job, "failed"))
        else:
            self.at(self.now() + takes, lambda: self._register(job))
        if self.preempted_per_hour:
            self.at(self.now() + self.chance.expovariate(self.preempted_per_hour / 3600), lambda: self._kill(job, "preempted"))

    def _register(self, job: SimulatedJob) -> None:
        if job.state == "starting":
            job.state = "idle"
            self.registered(job)

    def _kill(self, job: SimulatedJob, how: str) -> None:
        if job.state in ("starting", "idle", "busy"):
            self.lost(job)
            self._end(job, how)

    def _end(self, job: SimulatedJob, how: str) -> None:
        if job.state == "over":
            return
        self._over(job, how)
        ends = self.now() + EPILOG
        self.allocated += (ends - job.started) * job.width
        self.at(ends, lambda: self._release(job))

    def _over(self, job: SimulatedJob, how: str) -> None:
        job.state, job.ended = "over", how
        self.over.append(job)

    def _release(self, job: SimulatedJob) -> None:
        self.partitions[self._where.pop(job.number)] += job.width
        self.jobs.pop(job.number, None)
        self._kick()
