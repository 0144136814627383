"""How other systems decide how many jobs there are: their rules with default timings, restated for the simulated world.

Written after the programs' own code (versions of 2024/25). These are not their programs.
"""

import abc
import math
import statistics
from collections import defaultdict

from cluster_side.scaling.simulation.batch import SimulatedJob
from cluster_side.scaling.simulation.traces import Announced
from cluster_side.scaling.simulation.world import World

FOR_EVER = 10**9


class Rule(abc.ABC):
    """A policy that submits jobs one by one, and hears nothing of scans."""

    newest_first, jumps, tick, exit_after = False, False, 5.0, 300.0

    def __init__(self, world: World) -> None:
        self.world = world

    def announced(self, scan: Announced) -> None:  # noqa: B027  rules know nothing of the future
        """Hear nothing."""

    def step(self) -> None:
        """Decide for each pipeline."""
        for name in self.world.queues:
            self.decide(name)

    @abc.abstractmethod
    def decide(self, name: str) -> None:
        """Decide for one pipeline."""

    def idle_exit(self, job: SimulatedJob) -> float:
        """Return how long a worker stays."""
        return self.exit_after

    def stays(self, job: SimulatedJob) -> float:
        """Return that it never stays longer."""
        return 0.0

    def counts(self, name: str) -> tuple[int, int, int, int]:
        """Ready tasks, tasks in work, jobs that work, jobs that do not yet."""
        queue = self.world.queues[name]
        return len(queue.ready), len(queue.busy), queue.live, len(self.pending(name))

    def pending(self, name: str) -> list[SimulatedJob]:
        """Return the jobs that do not work yet, oldest first."""
        jobs = self.world.batch.jobs.values()
        return [job for job in jobs if job.pipeline == name and job.state in ("pending", "starting")]

    def cap(self, name: str) -> int:
        """Return how many jobs fit."""
        return self.world.trace.cpus // self.world.trace.widths[name]

    def submit(self, name: str, count: int, tasks: int = FOR_EVER) -> None:
        """Submit jobs, one call each."""
        for _ in range(max(0, count)):
            self.world.batch.submit(name, self.world.trace.widths[name], tasks, 1)

    def cancel(self, name: str, count: int) -> int:
        """Cancel the newest that wait; return how many."""
        waiting = [job for job in self.pending(name) if job.state == "pending"][::-1][: max(0, count)]
        if waiting:
            self.world.batch.cancel(waiting)
        return len(waiting)


class Static(Rule):
    """All CPUs, always."""

    exit_after = 1e8

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        if not self.world.now:
            jobs = self.world.trace.static[name]
            self.world.batch.submit(name, self.world.trace.widths[name], FOR_EVER, jobs)


class HyperQueue(Rule):
    """As many allocations as tasks wait, at most `backlog` pending."""

    backlog = 20

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        ready, _, live, pending = self.counts(name)
        self.submit(name, min(ready - pending, self.backlog - pending, self.cap(name) - live - pending))


class Parsl(Rule):
    """One slot per active task."""

    exit_after = 120.0

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        ready, busy, live, pending = self.counts(name)
        active, slots = ready + busy, live + pending
        if active > slots:
            self.submit(name, min(active - slots, self.cap(name) - slots))
        elif slots > active:
            self.cancel(name, slots - active)


class Dask(Rule):
    """Remaining time over five seconds; three votes before anything goes."""

    tick, exit_after = 1.0, 1e8

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.votes: dict[str, int] = defaultdict(int)

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        ready, busy, live, pending = self.counts(name)
        times = self.world.queues[name].times[-20:]
        active, mean = ready + busy, statistics.fmean(times) if times else 0.5
        target = min(active, math.ceil(active * mean / 5.0))
        target = min(max(target, 1 if active and not live else target), self.cap(name))
        self.votes[name] = self.votes[name] + 1 if target < live + pending else 0
        self.submit(name, target - live - pending)
        if self.votes[name] >= 3:
            self.votes[name], surplus = 0, live + pending - target
            surplus -= self.cancel(name, surplus)
            for job in list(self.world.queues[name].idle)[: max(0, surplus)]:
                self.world.tell_to_leave(job)


class Arc(Rule):
    """One job per task, which takes it and exits."""

    tick, exit_after = 1.0, 60.0

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        ready, busy, live, pending = self.counts(name)
        self.submit(name, min(ready + busy, self.cap(name)) - live - pending, 1)


PEERS: dict[str, type[Rule]] = {
    "static": Static,
    "HyperQueue rule, backlog 20": HyperQueue,
    "Parsl rule": Parsl,
    "Dask rule": Dask,
    "ARC rule": Arc,
}
