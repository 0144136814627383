"""Elasticity: the real scaling decisions against a Slurm in virtual time, beside other systems' rules; and what a decision costs.

The peers' rows are their rules with default timings, restated here, not their programs. "Oracle" has the same CPUs and no start
delay, first come first served: a bound for the makespan, not for mixed percentiles. Five seeds (held-out and
unseen: three). Virtual time: these numbers do not depend on the machine; those of the decision loop do.
"""

import heapq
import random
import statistics
from typing import Any

from beamtide import clock
from beamtide.config.models import JobConfig, PipelineConfig, SourceConfig
from beamtide.machine import Heard, Tick, link
from beamtide.messages.base import PipelineName, Seconds
from beamtide.messages.scaling import BufferGauge
from benchmarks import elastic_job, slurm_start
from benchmarks.elastic_rules import PEERS
from benchmarks.measure import Beside, Book
from cluster_side.scaling.jobs.batch_calls import Looked
from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.launchers.base import Phase, Seen, Sighting, Submitted
from cluster_side.scaling.policy.budget import NodeHourBudget
from cluster_side.scaling.policy.forecast import Forecast
from cluster_side.scaling.policy.pipeline import PipelineState
from cluster_side.scaling.policy.planner import Ceilings, Planner
from cluster_side.scaling.scaling_loop import ScalerMachine
from cluster_side.scaling.simulation.pilot import Pilot
from cluster_side.scaling.simulation.traces import TRACES
from cluster_side.scaling.simulation.world import SimulationResult, World, interpolated

SEEDS = {"steady": 5, "burst": 5, "mixed": 5, "heldout": 3, "unseen": 3}


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
    elastic_job.run(book)
    slurm_start.run(book)


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


def p95(outcomes: list[SimulationResult]) -> float:
    """Return the mean 95th percentile."""
    return statistics.fmean(one.percentile(95) for one in outcomes)


def waste(outcomes: list[SimulationResult]) -> float:
    """Return the mean waste."""
    return statistics.fmean(one.waste for one in outcomes)


def means(outcomes: list[SimulationResult]) -> dict[str, float]:
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
    pipelines = {}
    for name in names:
        config = PipelineConfig(pipeline=name, modality="m", source=SourceConfig(match="*"), job=JobConfig(slots=10))
        pipelines[name] = PipelineState(config, 12.0, Forecast(config))
    planner = Planner(pipelines, Ledger("us"), Ceilings(500), NodeHourBudget(1e9, 0.0), 1.0)
    machine = ScalerMachine(planner, 0.001, 5.0)
    planner.listed(Seen({}), 0.0)
    jobs: dict[str, Sighting] = {}
    for name in names:
        planner.pipelines[name].gauged(gauge(name, 2500, {}), 0.0)
    for number, act in enumerate(planner.step(0.0)):
        ids = tuple(f"{number}_{element}" for element in range(act.order.count))  # type: ignore[union-attr]
        planner.take(planner.ledger.answered(act.order.token, Submitted(ids), 0.0), 0.0)  # type: ignore[union-attr]
        jobs |= {job: Sighting(job, act.order.token, Phase.RUNNING) for job in ids}  # type: ignore[union-attr]
    assert len(jobs) == 500
    by_name = {name: {one.job: (1, 9) for one in jobs.values() if one.token.endswith(name)} for name in names}
    taken = []
    for step in range(1, 41):
        now = step * 0.5
        began = clock.monotonic()
        for name in names:
            machine.handle(Heard(link(f"buffer.{name}"), gauge(name, 2500, by_name[name])), Seconds(now))
        machine.handle(Looked(Seen(dict(jobs))), Seconds(now))
        machine.handle(Tick(), Seconds(now))
        taken.append(1e3 * (clock.monotonic() - began))
    notes = {"jobs": len(jobs), "workers": 5000, "queued": 20000}
    book.row("decision_loop_ms", taken, "ms", "lower", notes=notes)


def gauge(name: str, ready: int, jobs: dict[str, tuple[int, int]]) -> BufferGauge:
    """Return a queue."""
    leased = sum(busy for _, busy in jobs.values())
    return BufferGauge(pipeline=PipelineName(name), ready=ready, leased=leased, service_time=2.0, jobs=jobs)
