"""The real autoscaler's decisions (planner, law, ledger, breaker) as a policy of the simulated world.

What the autoscaler learns from buffers, metadata server and batch system, it learns here from the world, with the same delays:
the queue at every tick, the batch system's listing every few seconds, the answer to an order when the call returns.
"""

import math

from beamtide.config.models import JobConfig, PipelineConfig, SourceConfig
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.metadata import Scan, ScanState
from beamtide.messages.scaling import BufferGauge
from cluster_side.scaling.jobs.batch_calls import Start, Withdraw
from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.launchers.base import Denied, EndCause, Phase, Seen, Sighting, Submitted
from cluster_side.scaling.policy.budget import NodeHourBudget
from cluster_side.scaling.policy.forecast import Forecast
from cluster_side.scaling.policy.pipeline import PipelineState
from cluster_side.scaling.policy.planner import Ceilings, Planner
from cluster_side.scaling.simulation.batch import SimulatedJob
from cluster_side.scaling.simulation.traces import Announced
from cluster_side.scaling.simulation.world import Queue, World

LOOK_EVERY = 5.0
PLAIN = 20
STAY = 2.0
CAUSES = {"done": EndCause.DONE, "failed": EndCause.START, "preempted": EndCause.PREEMPTED, "cancelled": EndCause.CANCELLED}
PRIOR_START = 12.0


class Pilot:
    """`Planner` as the policy of a world."""

    newest_first, jumps = True, True

    def __init__(
        self, world: World, *, tick: float = 1.0, believe: bool = True, idle_exit: float = 5.0, drain: float = 1.0
    ) -> None:
        self.tick, self._world, self._believe, self._exit = tick, world, believe, idle_exit
        pipelines = {name: _pipeline(name, width) for name, width in world.trace.widths.items()}
        caps = Ceilings(world.batch.most, world.trace.cpus)
        self.planner = Planner(pipelines, Ledger("sim"), caps, NodeHourBudget(math.inf, 0.0), drain)
        self._looked = -LOOK_EVERY
        self._scans = 0

    def announced(self, scan: Announced) -> None:
        """Note an announced scan."""
        self._scans += 1
        known = Scan(id=ScanId(f"scan_{self._scans}"), shape=(scan.count,), period=1 / scan.rate)
        starts_in = scan.begins - self._world.now
        state = ScanState(scan=known, phase="announced", points=scan.count, version=self._scans, starts_in=starts_in)
        if self._believe:
            self.planner.pipelines[scan.pipeline].forecast.heard([state], self._world.now)

    def step(self) -> None:
        """Observe, decide, act."""
        now, planner = self._world.now, self.planner
        for name, queue in self._world.queues.items():
            gauge = _gauge(name, queue, now)
            planner.pipelines[name].gauged(gauge, now)
            planner.take(planner.ledger.workers_heard(gauge.jobs, now), now)
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            planner.listed(Seen(self._listing()), now)
        for act in planner.step(now):
            if isinstance(act, Start):
                self._start(act)
            else:
                self._withdraw(act)
        leaving = {job for name in planner.pipelines for job in planner.leaving(name)}
        for job in [job for job in self._world.batch.jobs.values() if str(job.number) in leaving]:
            self._world.tell_to_leave(job)

    def idle_exit(self, job: SimulatedJob) -> float:
        """Return how long a worker stays."""
        return self.planner.pipelines[job.pipeline].linger(self._exit)

    def stays(self, job: SimulatedJob) -> float:
        """Return whether it stays longer: while no more are there than should be."""
        return STAY if self._world.queues[job.pipeline].live <= self.planner.pipelines[job.pipeline].keep else 0.0

    def _start(self, act: Start) -> None:
        order, world = act.order, self._world
        jobs = world.batch.submit(order.pipeline, world.trace.widths[order.pipeline], act.tasks, order.count, order.token)
        answer = Submitted(tuple(str(job.number) for job in jobs)) if jobs else Denied(EndCause.LIMIT, "MaxSubmitJobs")
        self.planner.take(self.planner.ledger.answered(order.token, answer, world.now), world.now)

    def _withdraw(self, act: Withdraw) -> None:
        batch = self._world.batch
        batch.cancel([batch.jobs[int(job)] for job in act.ids if int(job) in batch.jobs])

    def _listing(self) -> dict[str, Sighting]:
        batch = self._world.batch
        over, batch.over = batch.over, []
        seen = {str(job.number): _sighting(job) for job in over}
        return seen | {str(job.number): _sighting(job) for job in batch.jobs.values() if job.state != "over"}


def _pipeline(name: str, width: int) -> PipelineState:
    config = PipelineConfig(pipeline=name, modality="simulated", source=_SOURCE, job=JobConfig(cpus_per_slot=width))
    return PipelineState(config, PRIOR_START, Forecast(config))


_SOURCE = SourceConfig(match="*", frames_per_task=1)


def _gauge(name: str, queue: Queue, now: float) -> BufferGauge:
    last = queue.times[-100:]
    jobs = {str(job.number): (1, 0) for job in queue.idle} | {str(number): (0, 1) for number in queue.busy}
    return BufferGauge(
        pipeline=PipelineName(name),
        ready=len(queue.ready),
        leased=len(queue.busy),
        workers=queue.live,
        idle=len(queue.idle),
        service_time=sum(last[-PLAIN:]) / len(last[-PLAIN:]) if last else 0.0,
        arrival_rate=queue.rate(now),
        done=len(queue.times),
        service_p99=max(last, default=0.0),
        jobs=jobs,
    )


def _sighting(job: SimulatedJob) -> Sighting:
    phases = {"pending": Phase.PENDING, "over": Phase.ENDED if job.ended == "done" else Phase.FAILED}
    return Sighting(str(job.number), job.token, phases.get(job.state, Phase.RUNNING), cause=CAUSES.get(job.ended))
