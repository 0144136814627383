"""A beamline with its queues and workers, a batch system, and a policy that scales: one run in virtual time.

The policy is told of announcements and is called at every tick, and at once when a queue grows quickly; it acts through the batch
system and by telling jobs to leave. Latency is from a task's arrival to its result; waste is what was allocated and did not
compute.
Clock policy: virtual seconds only; `random` from a seed, so that a run can be repeated.
"""

import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster_side.scaling.simulation.batch import Batch, Load, SimulatedJob
from cluster_side.scaling.simulation.traces import TRACES, Announced, TaskArrival, Trace

LEASE = 0.005
"""Seconds for asking for a task, and for storing its result."""
LIFETIME = 1500.0
LONGEST = 20000.0


class Policy(Protocol):
    """A scaling policy: decides how many jobs there are."""

    newest_first: bool
    """Which idle worker is served first."""
    tick: float
    jumps: bool
    """Whether it decides at once when a queue grows quickly."""

    def announced(self, scan: Announced) -> None:
        """A scan was announced."""
        ...

    def step(self) -> None:
        """Time for a decision."""
        ...

    def idle_exit(self, job: SimulatedJob) -> float:
        """For how many seconds a worker stays without a task."""
        ...

    def stays(self, job: SimulatedJob) -> float:
        """Whether it stays although it is over: for so many seconds more (0 = no)."""
        ...


@dataclass(slots=True)
class Queue:
    """The tasks and workers of one pipeline."""

    ready: deque[TaskArrival] = field(default_factory=deque)
    idle: deque[SimulatedJob] = field(default_factory=deque)
    busy: dict[int, tuple[SimulatedJob, TaskArrival]] = field(default_factory=dict)
    came: deque[float] = field(default_factory=deque)
    times: list[float] = field(default_factory=list)
    told: int = 0
    """Ready tasks when the policy last decided."""

    @property
    def live(self) -> int:
        """Jobs that wait for a task or have one."""
        return len(self.idle) + len(self.busy)

    def rate(self, now: float) -> float:
        """Return the arrivals per second over the last 30 s."""
        while self.came and self.came[0] < now - 30:
            self.came.popleft()
        return len(self.came) / max(5.0, min(30.0, now - self.came[0])) if self.came else 0.0


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The outcome of a run: seconds from arrival to result by pipeline, CPU-seconds wasted, calls of the batch system, jobs."""

    latencies: dict[str, list[float]]
    makespan: float
    waste: float
    calls: int
    jobs: int
    cancelled: int
    undone: int

    def percentile(self, percent: float, pipeline: str = "") -> float:
        """Return a percentile of the latency."""
        all_of = [one for name, some in self.latencies.items() if pipeline in ("", name) for one in some]
        return interpolated(all_of, percent)


class World:
    """One run of one policy on one trace."""

    def __init__(self, trace: str, seed: int, load: Load = "normal", **batch: Any) -> None:
        self.now, self._heap, self._numbers = 0.0, list[tuple[float, int, Callable[[], None]]](), itertools.count()
        self.trace: Trace = TRACES[trace](random.Random(seed))  # noqa: S311  a simulation
        self.queues = {name: Queue() for name in self.trace.widths}
        self._latencies: dict[str, list[float]] = {name: [] for name in self.trace.widths}
        self._computed = self._last_done = 0.0
        self.leaving: set[int] = set()
        chance = random.Random(seed * 7919 + 13)  # noqa: S311
        self.batch = Batch(lambda: self.now, self.at, chance, {"all": self.trace.cpus}, load, **batch)
        self.batch.registered, self.batch.lost = self._free, self._lost
        self.policy: Policy

    def run(self, policy: Policy) -> SimulationResult:
        """Run the simulation."""
        self.policy = policy
        for arrival in self.trace.arrivals:
            self.at(arrival.at, functools.partial(self._arrive, arrival))
        for scan in self.trace.announced:
            self.at(scan.at, functools.partial(policy.announced, scan))
        self.at(0.0, self._tick)
        done = 0
        while self._heap and done < len(self.trace.arrivals) and self.now < LONGEST:
            self.now, _, happens = heapq.heappop(self._heap)
            happens()
            done = sum(map(len, self._latencies.values()))
        self.batch.close(lambda job: min(300.0, policy.idle_exit(job)) if job.tasks > 1 or job.state != "busy" else 0.0)
        return SimulationResult(
            self._latencies,
            self._last_done - 60,
            self.batch.allocated - self._computed,
            self.batch.calls,
            self.batch.submitted,
            self.batch.cancelled,
            len(self.trace.arrivals) - done,
        )

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Schedule an event."""
        heapq.heappush(self._heap, (when, next(self._numbers), happens))

    def tell_to_leave(self, job: SimulatedJob) -> None:
        """End a job at its task boundary: at once if it is idle."""
        queue = self.queues[job.pipeline]
        self.leaving.add(job.number)
        if job.state == "idle" and job in queue.idle:
            queue.idle.remove(job)
            self.batch.leave(job)

    def _tick(self) -> None:
        self._step()
        self.at(self.now + self.policy.tick, self._tick)

    def _step(self) -> None:
        for queue in self.queues.values():
            queue.told = len(queue.ready)
        self.policy.step()

    def _arrive(self, arrival: TaskArrival) -> None:
        queue = self.queues[arrival.pipeline]
        queue.ready.append(arrival)
        queue.came.append(self.now)
        self._dispatch(queue)
        if self.policy.jumps and len(queue.ready) > 2 * queue.told:
            self._step()

    def _dispatch(self, queue: Queue) -> None:
        while queue.ready and queue.idle:
            job = queue.idle.pop() if self.policy.newest_first else queue.idle.popleft()
            self._lease(queue, job)

    def _lease(self, queue: Queue, job: SimulatedJob) -> None:
        arrival = queue.ready.popleft()
        job.state, job.served = "busy", job.served + 1
        queue.busy[job.number] = (job, arrival)
        self.at(self.now + LEASE + arrival.seconds, lambda: self._finish(queue, job, arrival))

    def _finish(self, queue: Queue, job: SimulatedJob, arrival: TaskArrival) -> None:
        if queue.busy.pop(job.number, None) is None:
            return  # the job was killed meanwhile
        self._last_done = self.now + LEASE
        self._latencies[arrival.pipeline].append(self._last_done - arrival.at)
        self._computed += arrival.seconds * job.width
        queue.times.append(arrival.seconds)
        if job.served >= job.tasks or self.now - job.started > LIFETIME or job.number in self.leaving:
            self.batch.leave(job)
        else:
            self._free(job)

    def _free(self, job: SimulatedJob) -> None:
        queue = self.queues[job.pipeline]
        job.state = "idle"
        if job.number in self.leaving:
            self.batch.leave(job)
        elif queue.ready:
            self._lease(queue, job)
        else:
            queue.idle.append(job)
            served = job.served
            self.at(self.now + self.policy.idle_exit(job), lambda: self._tired(queue, job, served))

    def _tired(self, queue: Queue, job: SimulatedJob, served: int) -> None:
        if job.state != "idle" or job.served != served or job not in queue.idle:
            return
        if (longer := self.policy.stays(job)) > 0:
            self.at(self.now + longer, lambda: self._tired(queue, job, served))
            return
        queue.idle.remove(job)
        self.batch.leave(job)

    def _lost(self, job: SimulatedJob) -> None:
        queue = self.queues[job.pipeline]
        if held := queue.busy.pop(job.number, None):
            queue.ready.appendleft(held[1])
            self._dispatch(queue)
        elif job in queue.idle:
            queue.idle.remove(job)


def interpolated(values: list[float], percent: float) -> float:
    """Return a percentile, interpolated; 0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
