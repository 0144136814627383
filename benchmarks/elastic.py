"""Elasticity: the real scaling decisions against a Slurm in virtual time, beside other systems' rules; and what a decision costs.

The peers' rows are their rules with default timings, restated here, not their programs. "Oracle" has the same CPUs and no start
delay, first come first served: a bound for the makespan, not for mixed percentiles. Five seeds (held-out: three), as in the
scaling study. Virtual time: these numbers do not depend on the machine; those of the decision loop do.
"""

import heapq
import math
import pathlib
import random
import statistics
from collections import defaultdict
from typing import Any

from beamtide import clock
from beamtide.config import Job, PipelineConfig, Source
from beamtide.machine import Heard, Tick, link
from beamtide.messages.base import PipelineName, Seconds
from beamtide.messages.scaling import BufferGauge
from benchmarks.measure import Beside, Book
from cluster_side.scaling.budget import Budget
from cluster_side.scaling.crew import Crew
from cluster_side.scaling.forecast import Forecast
from cluster_side.scaling.launchers.base import JobOrder, JobShape, Phase, Seen, Sighting, Submitted
from cluster_side.scaling.ledger import Ledger
from cluster_side.scaling.scaler import ScalerMachine
from cluster_side.scaling.simulation.batch import SimulatedJob
from cluster_side.scaling.simulation.pilot import Pilot
from cluster_side.scaling.simulation.traces import TRACES, Announced
from cluster_side.scaling.simulation.world import Outcome, World, interpolated
from cluster_side.scaling.steering import Caps, Steering

SEEDS = {"steady": 5, "burst": 5, "mixed": 5, "heldout": 3}
FOR_EVER = 10**9


class Rule:
    """A policy that submits jobs one by one, and hears nothing of scans."""

    newest_first, jumps, tick, exit_after = False, False, 5.0, 300.0

    def __init__(self, world: World) -> None:
        self.world = world

    def announced(self, scan: Announced) -> None:
        """Hear nothing."""

    def step(self) -> None:
        """Decide for each pipeline."""
        for name in self.world.queues:
            self.decide(name)

    def decide(self, name: str) -> None:
        """Decide for one pipeline."""
        raise NotImplementedError

    def idle_exit(self, job: SimulatedJob) -> float:
        """Return how long a worker stays."""
        return self.exit_after

    def stays(self, job: SimulatedJob) -> float:
        """Return that it never stays longer."""
        return 0.0

    def counts(self, name: str) -> tuple[int, int, int, int]:
        """Ready tasks, tasks in work, jobs that work, jobs that do not yet."""
        queue = self.world.queues[name]
        return len(queue.ready), len(queue.busy), queue.live, len(self.world.pending(name))

    def cap(self, name: str) -> int:
        """Return how many jobs fit."""
        return self.world.trace.cpus // self.world.trace.widths[name]

    def submit(self, name: str, count: int, tasks: int = FOR_EVER) -> None:
        """Submit jobs, one call each."""
        for _ in range(max(0, count)):
            self.world.batch.submit(name, self.world.trace.widths[name], tasks, 1)

    def cancel(self, name: str, count: int) -> int:
        """Cancel the newest that wait; return how many."""
        waiting = [job for job in self.world.pending(name) if job.state == "pending"][::-1][: max(0, count)]
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


def oracle(name: str, seed: int) -> float:
    """Return the 95th percentile of the latency with no start delay at all."""
    trace = TRACES[name](random.Random(seed))  # noqa: S311  a simulation
    free, running, waiting, latencies, number = trace.cpus, list[tuple[float, int, int]](), list[Any](), list[float](), 0
    arrivals = list(trace.arrivals)
    while arrivals[number:] or running or waiting:
        if number < len(arrivals) and (not running or arrivals[number].at <= running[0][0]):
            now = arrivals[number].at
            waiting.append(arrivals[number])
            number += 1
        else:
            now, _, width = heapq.heappop(running)
            free += width
        still = []
        for position, task in enumerate(waiting):
            width = trace.widths[task.pipeline]
            if width > free:
                still.append(task)
                if not free:
                    still += waiting[position + 1 :]
                    break
                continue
            free -= width
            heapq.heappush(running, (now + task.seconds, len(latencies), width))
            latencies.append(now + task.seconds - task.at)
        waiting = still
    return interpolated(latencies, 95)


def run(book: Book) -> None:
    """Measure everything."""
    for name, seeds in SEEDS.items():
        traced(book, name, range(1, seeds + 1))
    decisions(book)


def traced(book: Book, name: str, seeds: range) -> None:
    """Run one trace with us and with the peers."""
    ours = [world.run(Pilot(world)) for world in (World(name, seed) for seed in seeds)]
    blind = [world.run(Pilot(world, believe=False)) for world in (World(name, seed) for seed in seeds)]
    busy = [world.run(Pilot(world)) for world in (World(name, seed, "busy") for seed in seeds)]
    peers = {peer: [world.run(rule(world)) for world in (World(name, seed) for seed in seeds)] for peer, rule in PEERS.items()}
    best = min((one for one in peers if one != "static"), key=lambda one: p95(peers[one]))
    notes = {f"p95 {peer}": round(p95(outcomes), 2) for peer, outcomes in peers.items()}
    notes |= {"p95 ours, nothing announced": round(p95(blind), 2), "p95 ours, busy cluster": round(p95(busy), 2)}
    floor = Beside("oracle: no start delay", [oracle(name, seed) for seed in seeds])
    each = [one.percentile(95) for one in ours]
    book.row(f"p95_s_{name}", each, "s", "lower", peer=Beside(best, [p95(peers[best])]), floor=floor, notes=notes | means(ours))
    wasted = {f"waste {peer}": round(waste(outcomes)) for peer, outcomes in peers.items()}
    cheapest = min(peers, key=lambda one: waste(peers[one]))
    peer = Beside(cheapest, [waste(peers[cheapest])])
    book.row(f"waste_slot_s_{name}", [one.waste for one in ours], "slot-s", "lower", peer=peer, notes=wasted)


def p95(outcomes: list[Outcome]) -> float:
    """Return the mean 95th percentile."""
    return statistics.fmean(one.percentile(95) for one in outcomes)


def waste(outcomes: list[Outcome]) -> float:
    """Return the mean waste."""
    return statistics.fmean(one.waste for one in outcomes)


def means(outcomes: list[Outcome]) -> dict[str, float]:
    """Return what else is worth knowing: means over seeds."""
    return {
        "mean": round(p95(outcomes), 2),
        "makespan": round(statistics.fmean(one.makespan for one in outcomes), 1),
        "calls": round(statistics.fmean(one.calls for one in outcomes), 1),
        "jobs": round(statistics.fmean(one.jobs for one in outcomes), 1),
    }


def decisions(book: Book) -> None:
    """Measure one decision with 20,000 queued tasks and 500 jobs of 10 workers each, gauges and picture included."""
    names = [f"p{number}" for number in range(8)]
    crews = {}
    for name in names:
        config = PipelineConfig(pipeline=name, modality="m", source=Source(match="*"), job=Job(slots=10))
        crews[name] = Crew(config, 12.0, Forecast(config))
    steering = Steering(crews, Ledger("us"), Caps(500), Budget(1e9, 0.0), 1.0)
    order = JobOrder("p0", "m", "t", 1, 10, 30, JobShape(), "n", (), pathlib.Path())
    machine = ScalerMachine(steering, 0.001, 5.0, lambda buy: order)
    steering.pictured(Seen({}), 0.0)
    jobs: dict[str, Sighting] = {}
    for name in names:
        steering.crews[name].gauged(gauge(name, 2500, {}), 0.0)
    for number, act in enumerate(steering.step(0.0)):
        ids = tuple(f"{number}_{element}" for element in range(act.order.count))  # type: ignore[union-attr]
        steering.take(steering.ledger.answered(act.order.token, Submitted(ids), 0.0), 0.0)  # type: ignore[union-attr]
        jobs |= {job: Sighting(job, act.order.token, Phase.RUNNING) for job in ids}  # type: ignore[union-attr]
    assert len(jobs) == 500
    by_name = {name: {one.job: (1, 9) for one in jobs.values() if one.token.endswith(name)} for name in names}
    taken = []
    for step in range(1, 41):
        now = step * 0.5
        began = clock.monotonic()
        for name in names:
            machine.handle(Heard(link(f"buffer.{name}"), gauge(name, 2500, by_name[name])), Seconds(now))
        machine.took([Seen(dict(jobs))], now)
        machine.handle(Tick(), Seconds(now))
        taken.append(1e3 * (clock.monotonic() - began))
        machine.changes, machine.errands = {}, []
    notes = {"jobs": len(jobs), "workers": 5000, "queued": 20000}
    book.row("decision_loop_ms", taken, "ms", "lower", notes=notes)


def gauge(name: str, ready: int, jobs: dict[str, tuple[int, int]]) -> BufferGauge:
    """Return a queue."""
    zeros: Any = dict.fromkeys(("held", "idle", "oldest_wait", "arrival_rate", "done", "abandoned", "retried", "workers"), 0)
    leased = sum(busy for _, busy in jobs.values())
    return BufferGauge(pipeline=PipelineName(name), ready=ready, leased=leased, service_time=2.0, jobs=jobs, **zeros)
