"""The autoscaler: reads the queues, asks the law, starts jobs.

Two facts are kept apart: what we started (the launcher's phases) and who answers (the buffer's gauge). A buffer that does not
answer is unknown: its pipeline keeps what it has and gets nothing new. Jobs end by themselves when they are idle, so nothing
is cancelled here before the end.

Clock policy: `beamtide.clock.monotonic`.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from beamtide import clock
from beamtide.config import Deployment, PipelineConfig
from beamtide.errors import BeamtideError
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.presence import Presence
from beamtide.pump import Caller
from cluster_side.scaling import law
from cluster_side.scaling.brake import Brake
from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.base import JobOrder, JobShape, Launcher, Phase, Seen, Submitted, job_name

PRIOR_START = 3.0
GAUGE_PATIENCE = 0.5
FAREWELL = 35.0
"""Longer than a job needs to drain (seconds)."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A worker is one core: parallelism is the number of workers."""
log = structlog.get_logger()


@dataclass(slots=True)
class Crew:
    """The jobs of one pipeline."""

    config: PipelineConfig
    jobs: dict[str, float] = field(default_factory=dict)
    """Living jobs: id -> when it was started."""
    unseen: deque[float] = field(default_factory=deque)
    """When the jobs were started of which no worker has been seen yet."""
    gauge: BufferGauge | None = None
    brake: Brake = field(default_factory=Brake)
    want: int = 0
    because: str = ""

    @property
    def slots(self) -> int:
        """Slots of all living jobs."""
        return len(self.jobs) * self.config.job.slots

    def demand(self) -> law.Demand:
        """Return what waits; nothing when it is not known."""
        if self.gauge is None:
            return law.Demand(0, 0, 0.0)
        return law.Demand(self.gauge.ready, self.gauge.leased, self.gauge.service_time, self.gauge.arrival_rate)

    def fleet(self, cold_start: float) -> law.Fleet:
        """Return who works, of the jobs that we started."""
        workers = min(self.gauge.workers if self.gauge else 0, self.slots)
        return law.Fleet(workers, self.slots - workers, cold_start)


class Autoscaler:
    """One deployment's jobs."""

    def __init__(self, deployment: Deployment, launcher: Launcher, caller: Caller) -> None:
        self._deployment, self._launcher, self._caller = deployment, launcher, caller
        self._crews = {name: Crew(config) for name, config in deployment.pipelines.items()}
        self._starts: deque[float] = deque(maxlen=60)
        self._count = 0

    def step(self) -> None:
        """Look, decide, start."""
        self._look()
        for name, crew in self._crews.items():
            crew.gauge = self._gauge(name)
            self._registered(crew)
        cold, scaling = self.cold_start(), self._deployment.site.scaling
        wishes = {}
        for name, crew in self._crews.items():
            slots = law.wish(crew.demand(), crew.fleet(cold), scaling.drain_within)
            crew.want = law.jobs_for(slots, crew.config.job.slots)
            wishes[name] = crew.want
        for name, jobs in law.share(wishes, scaling.caps.jobs).items():
            self._decide(self._crews[name], jobs, cold)

    def cold_start(self) -> float:
        """Return the 90th percentile of the time from starting a job to seeing its worker, in seconds."""
        known = sorted(self._starts)
        return known[int(0.9 * (len(known) - 1))] if known else PRIOR_START

    def progress(self) -> dict[str, float]:
        """Return the numbers to show."""
        numbers = {"jobs": float(self._alive())}
        for name, crew in self._crews.items():
            numbers |= {f"{name}.jobs": float(len(crew.jobs)), f"{name}.want": float(crew.want)}
        return numbers

    def why(self) -> str:
        """Return the reasons of the last decisions."""
        return "; ".join(f"{name}: {crew.because}" for name, crew in self._crews.items() if crew.because)

    def leave(self) -> None:
        """Tell all jobs to leave, and wait for them."""
        for crew in self._crews.values():
            self._launcher.cancel(tuple(crew.jobs))
        end = clock.monotonic() + FAREWELL
        while self._alive() and clock.monotonic() < end:
            clock.pause(0.05)
            self._look()

    def _alive(self) -> int:
        return sum(len(crew.jobs) for crew in self._crews.values())

    def _gauge(self, pipeline: str) -> BufferGauge | None:
        try:
            address = self._deployment.address(f"buffer.{pipeline}")
            return self._caller.ask(address, GaugeRequest(), BufferGauge, patience=GAUGE_PATIENCE)
        except BeamtideError:
            return None

    def _look(self) -> None:
        now, picture = clock.monotonic(), self._launcher.look()
        if not isinstance(picture, Seen):
            return
        for crew in self._crews.values():
            for job in [job for job in crew.jobs if job in picture.jobs]:
                if (phase := picture.jobs[job].phase) in (Phase.ENDED, Phase.FAILED):
                    crew.brake.ended(phase is Phase.ENDED, now)
                    if (began := crew.jobs.pop(job)) in crew.unseen:
                        crew.unseen.remove(began)

    def _registered(self, crew: Crew) -> None:
        seen = -(-crew.gauge.workers // crew.config.job.slots) if crew.gauge else 0
        while crew.unseen and seen > len(crew.jobs) - len(crew.unseen):
            self._starts.append(clock.monotonic() - crew.unseen.popleft())

    def _decide(self, crew: Crew, granted: int, cold: float) -> None:
        if crew.gauge is None:
            crew.because = "its buffer does not answer, so nothing is started"
            return
        slots, now = crew.config.job.slots, clock.monotonic()
        decision = law.decide(crew.demand(), crew.fleet(cold), granted * slots)
        room = max(0, self._deployment.site.scaling.caps.jobs - self._alive())
        wanted = min(law.jobs_for(decision.start, slots), room)
        count = crew.brake.allows(wanted, len(crew.jobs), now)
        crew.because = crew.brake.why(now) or (
            decision.because if decision.start or crew.want <= granted else _capped(crew, granted)
        )
        if count:
            self._start(crew, count, cold)

    def _start(self, crew: Crew, count: int, cold: float) -> None:
        log.info("starts jobs", pipeline=crew.config.pipeline, jobs=count, because=crew.because)
        answer = self._launcher.submit(self._order(crew, count, cold))
        if not isinstance(answer, Submitted):
            log.error("jobs could not be started", reason=answer.reason)
            crew.brake.ended(well=False, now=clock.monotonic())
            return
        for job in answer.ids:
            crew.jobs[job] = clock.monotonic()
            crew.unseen.append(crew.jobs[job])

    def _order(self, crew: Crew, count: int, cold: float) -> JobOrder:
        name, job, self._count = crew.config.pipeline, crew.config.job, self._count + 1
        tasks = job.tasks_per_job
        if tasks == "auto":
            tasks = law.tasks_per_job(crew.demand().service_time, cold) * job.slots
        token = f"{name}-{os.getpid()}-{self._count:05d}"
        idle = self._deployment.site.scaling.idle_exit
        argv = (*self._launcher.beamtide, "work", "-c", str(self._deployment.file), "--pipeline", name)
        argv += ("--slots", str(job.slots), "--tasks", str(tasks), "--idle-exit", str(idle))
        return JobOrder(
            pipeline=name,
            modality=crew.config.modality,
            token=token,
            count=count,
            slots=job.slots,
            tasks=tasks,
            shape=JobShape(cpus=job.slots),
            name=job_name(self._deployment, name),
            argv=argv,
            logs=self._deployment.site.state / "logs",
            env=ONE_THREAD,
        )


def run(deployment: Deployment, stop: Callable[[], bool]) -> None:
    """Scale until `stop` says so; then our jobs leave."""
    with Caller() as caller:
        scaler = Autoscaler(deployment, launcher_of(deployment), caller)
        presence = Presence(deployment, "autoscaler", caller)
        try:
            while not stop():
                scaler.step()
                presence.beat(scaler.progress(), scaler.why())
                clock.pause(deployment.site.scaling.tick)
        finally:
            scaler.leave()


def _capped(crew: Crew, granted: int) -> str:
    return f"wants {crew.want} jobs, gets {granted} of the cap (scaling.caps.jobs)"
