"""One pipeline as the autoscaler sees it: its queue, its jobs, and how many jobs it wants.

Clock policy: `now` is the caller's monotonic clock in seconds.
"""

import statistics
from collections import deque
from dataclasses import dataclass, field

import msgspec

from beamtide.config.models import PipelineConfig
from beamtide.messages.scaling import BufferGauge, StartStages
from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.jobs.states import ON_THE_WAY
from cluster_side.scaling.policy import law
from cluster_side.scaling.policy.breaker import Breaker
from cluster_side.scaling.policy.forecast import Expected, Forecast

SAMPLES, ENOUGH = 60, 10
ANNOUNCED_EXIT = 20.0
"""Seconds for which an idle worker stays while a scan is announced or runs."""
ANNOUNCED_LONGER = 3
"""While more work is announced, a job may take so many times as many tasks: it would only be replaced."""
FRESH = 5.0
"""A gauge older than this (seconds) is not used any more."""
WAITS_LONG = 2.0
"""Spare jobs are used where jobs wait longer than this many cold starts."""


@dataclass(slots=True)
class PipelineState:
    """What is known and decided about one pipeline."""

    config: PipelineConfig
    prior_start: float
    forecast: Forecast
    breaker: Breaker = field(default_factory=Breaker)
    gauge: BufferGauge | None = None
    gauged_at: float = -1e9
    most: int | None = None
    """The most jobs that a person allows."""
    paused: bool = False
    full: str = ""
    """Why there is no room for its results, as its sorter said last; "" = there is, or the sorter did not answer yet."""
    cold_starts: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    """From being asked for to the first worker that was heard of."""
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    """From running to the first worker that was heard of."""
    stages: deque[StartStages] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    """The start stages of the last jobs."""
    service_time: float = 0.0
    """The last known one, also from before a restart."""
    expected: Expected | None = None
    keep: int = 0
    """Workers that should stay although they are idle."""
    want: int = 0
    because: str = ""
    surplus_since: float | None = None
    submitted_at: float = -1e9
    cancelled_at: float = -1e9

    @property
    def name(self) -> str:
        """The pipeline."""
        return self.config.pipeline

    @property
    def slots(self) -> int:
        """Slots of one job."""
        return self.config.job.slots

    def cold_start(self) -> float:
        """Return the 90th percentile of the time from asking for a job to its first worker, in seconds."""
        if len(self.cold_starts) < ENOUGH:
            return self.prior_start
        return sorted(self.cold_starts)[int(0.9 * len(self.cold_starts))]

    def start(self) -> float:
        """Return the mean time from running to the first worker: what every job pays, however long it waited."""
        return statistics.fmean(self.starts) if self.starts else self.cold_start()

    def registered(self, job: str, after: float, start: float | None) -> None:
        """Note the start of a job: `after` since it was asked for, `start` since it was seen running (None: it never was).

        A listing shows a job as running too late; its start took at least as long as its worker reported.
        """
        self.cold_starts.append(after)
        told = self.gauge.starts.get(job) if self.gauge else None
        seconds = sum(msgspec.structs.astuple(told)) if told else 0.0
        if told and 0.0 <= seconds <= after:
            self.stages.append(told)
            start = max(start or 0.0, seconds)
        self.starts.extend([start] if start is not None else [])

    def usual_stages(self) -> StartStages | None:
        """Return the mean start stages of the last jobs."""
        columns = zip(*(msgspec.structs.astuple(one) for one in self.stages), strict=True)
        means = [statistics.fmean(column) for column in columns]
        return StartStages(**dict(zip(StartStages.__struct_fields__, means, strict=True))) if means else None

    def wait(self) -> float:
        """Return the mean time that jobs wait before they run."""
        return max(0.0, statistics.fmean(self.cold_starts) - self.start()) if len(self.cold_starts) >= ENOUGH else 0.0

    def gauged(self, gauge: BufferGauge, now: float) -> None:
        """Note the gauge of the buffer."""
        self.gauge, self.gauged_at = gauge, now
        self.service_time = gauge.service_time or self.service_time
        self.forecast.arrivals(gauge.ready + gauge.held + gauge.leased + gauge.done + gauge.abandoned)

    def known(self, now: float) -> bool:
        """Whether the queue is known at this moment."""
        return self.gauge is not None and now - self.gauged_at <= FRESH

    def demand(self, now: float) -> law.Demand:
        """Return the demand; none while the queue is not known."""
        if self.gauge is None:
            return law.Demand(0, 0, 0.0)
        self.expected = self.forecast.expected(now, self.cold_start())
        gauge, coming = self.gauge, self.expected
        if coming is None:
            return law.Demand(gauge.ready, gauge.leased, self.service_time, gauge.arrival_rate)
        return law.Demand(gauge.ready, gauge.leased, self.service_time, coming.rate, max(0.0, coming.tasks))

    def fleet(self, ledger: Ledger, now: float) -> law.Fleet:
        """Return the supply: slots of jobs that work, and of those that will."""
        working, coming = ledger.working(self.name, now), sum(job.order.slots for job in ledger.of(self.name, ON_THE_WAY))
        unanswered = sum(order.count * order.slots for order in ledger.unanswered(self.name))
        return law.Fleet(working, coming + unanswered, self.cold_start())

    def tasks_per_slot(self) -> int:
        """Return how many tasks each slot of a job should take: what the site file says, or the law."""
        fixed = self.config.job.tasks_per_job
        if fixed != "auto":
            return max(1, -(-fixed // self.slots))
        least = law.tasks_per_job(self.service_time, self.start())
        return least if least == 1 or self.expected is None else ANNOUNCED_LONGER * least

    def strict(self) -> bool:
        """Whether a job takes one task and exits."""
        return self.tasks_per_slot() == 1

    def spare(self) -> float:
        """Return the share of missing slots that may be pending beyond the target."""
        if self.strict():
            return min(1.0, self.wait() / (self.start() + (self.service_time or law.UNKNOWN_SERVICE_TIME)))
        return law.SPARE if self.wait() > WAITS_LONG * self.start() else 0.0

    def linger(self, idle_exit: float) -> float:
        """Return how long an idle worker should stay, in seconds: longer while a scan is announced or runs."""
        return idle_exit if self.expected is None else max(idle_exit, ANNOUNCED_EXIT)
