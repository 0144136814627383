"""The planner: from queues, announcements, jobs and circuit breakers of all pipelines to orders and cancellations.

Theory: the law says how many jobs each pipeline wants, these wishes share the caps, and the difference to the present jobs is
ordered, cancelled, or asked to leave after the present task. Unknown facts stop growth: a buffer that does not answer, a listing
of the batch system that is not good, an order with an unclear answer. So does a sorter without room: the results of further jobs
would only wait. Surplus pending jobs are cancelled newest first, after 3 s; after a cancellation nothing is ordered for 3 s, and
after an order nothing is cancelled for 3 s, so that the two do not alternate. The autoscaler and the simulation use this same
class.

Clock policy: `now` is the caller's monotonic clock in seconds.
Invariants: jobs never exceed the caps; nothing is ordered without a good listing; one order per pipeline and step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cluster_side.scaling.jobs.batch_calls import Start, Withdraw
from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.jobs.states import WORKING, Ended, Job, JobState, News, Order, Refusal, Registered, token_of
from cluster_side.scaling.launchers.base import MOST_IN_ARRAY, EndCause, JobListing
from cluster_side.scaling.policy import law
from cluster_side.scaling.policy.breaker import BadNodes, LearnedCap
from cluster_side.scaling.policy.budget import NodeHourBudget
from cluster_side.scaling.policy.pipeline import PipelineState

SETTLE = 3.0
"""Seconds between an order and a cancellation of one pipeline."""
VOTE = 1.0
"""Seconds for which pending jobs must be too many before they are cancelled."""
CONTENDED = 0.98


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that may be there at once: jobs, and CPUs of all jobs together (0: no limit but that of jobs)."""

    jobs: int
    cpus: int = 0


Act: TypeAlias = Start | Withdraw


@dataclass(slots=True)
class Planner:
    """All pipelines of one deployment. `series` begins the numbers of its tokens; `costs` is the nodes that one job takes."""

    pipelines: Mapping[str, PipelineState]
    ledger: Ledger
    caps: Ceilings
    budget: NodeHourBudget
    drain_within: float
    series: str = "0"
    costs: Mapping[str, float] = field(default_factory=dict)
    launcher: str = ""
    """Where jobs run, for people."""
    learned: LearnedCap = field(default_factory=LearnedCap)
    nodes: BadNodes = field(default_factory=BadNodes)
    _count: int = 0

    def step(self, now: float) -> list[Act]:
        """Decide for every pipeline."""
        self.budget.spend(sum(job.order.cost for job in self.ledger.jobs.values() if job.started is not None), now)
        targets, contended = self._targets(now)
        acts: list[Act] = []
        for name, pipeline in self.pipelines.items():
            acts += self._decide(pipeline, targets[name], now, contended=contended)
        return acts + self._overdue(now)

    def listed(self, listing: JobListing, now: float) -> None:
        """Handle a listing of the batch system."""
        self.take(self.ledger.listed(listing, now), now)

    def take(self, news: Iterable[News], now: float) -> None:
        """Update breakers and cold starts from news about jobs and orders."""
        for one in news:
            match one:
                case Registered(job, after, start) if pipeline := self.pipelines.get(job.order.pipeline):
                    pipeline.breaker.works()
                    self.nodes.work(job.sighting.nodes)
                    pipeline.registered(job.sighting.job, after, start)
                case Ended(job, cause, reason, worked) if pipeline := self.pipelines.get(job.order.pipeline):
                    if cause is EndCause.NODE or not worked:
                        self.nodes.ended(cause, job.sighting.nodes, now)
                    if not worked and job.state is not JobState.LEAVING:
                        pipeline.breaker.ended(cause, reason, now)
                case Refusal(order, cause, reason) if pipeline := self.pipelines.get(order.pipeline):
                    pipeline.breaker.denied(cause, reason, now)
                    if cause is EndCause.LIMIT:
                        self.learned.hit(self.ledger.alive(), order.count, reason, now)

    def leaving(self, name: str) -> tuple[str, ...]:
        """Return the jobs (`Sighting.job`) whose workers should get no further task."""
        return tuple(job.sighting.job for job in self.ledger.of(name, frozenset({JobState.LEAVING})))

    def _width(self, name: str) -> int:
        job = self.pipelines[name].config.job
        return job.cpus * job.nodes if self.caps.cpus else 1

    def _targets(self, now: float) -> tuple[dict[str, int], bool]:
        """Return how many jobs each pipeline may have, and whether the caps bind."""
        wishes = {}
        for name, pipeline in self.pipelines.items():
            fleet = pipeline.fleet(self.ledger, now)
            slots = law.wish(pipeline.demand(now), fleet, self.drain_within, strict=pipeline.strict())
            pipeline.want, pipeline.keep = law.jobs_for(slots, pipeline.slots), slots if pipeline.expected else 0
            wishes[name] = law.Claim(self._allowed(pipeline), self._width(name))
        cap = self.learned.room(self.caps.jobs, now)
        if not self.caps.cpus:
            return law.share(wishes, cap), self._contended(wishes, cap)
        given = law.share(wishes, self.caps.cpus)
        shared = law.share({name: law.Claim(jobs) for name, jobs in given.items()}, cap)
        return shared, self._contended(wishes, self.caps.cpus)

    def _contended(self, wishes: Mapping[str, law.Claim], cap: int) -> bool:
        """Whether a pipeline wants more than it has, and the cap is used up: by wishes, or by jobs that are not needed now."""
        there = {name: len(self.ledger.of(name)) for name in wishes}
        claimed = sum(max(wish.jobs, there[name]) * wish.width for name, wish in wishes.items())
        return claimed > CONTENDED * cap and any(wish.jobs > there[name] for name, wish in wishes.items())

    def _allowed(self, pipeline: PipelineState) -> int:
        """Return how many jobs a pipeline may claim; one that cannot start any leaves the cap to others."""
        if pipeline.paused or self.budget.why():
            return 0
        there = len(self.ledger.of(pipeline.name)) if pipeline.full else pipeline.want
        return min(pipeline.want, there if pipeline.most is None else min(there, pipeline.most))

    def _decide(self, pipeline: PipelineState, target: int, now: float, *, contended: bool) -> list[Act]:
        if not pipeline.known(now):
            pipeline.because = "its buffer does not answer, so nothing is started"
            return []
        fleet = pipeline.fleet(self.ledger, now)
        decision = law.decide(pipeline.demand(now), fleet, target * pipeline.slots, spare=pipeline.spare())
        pipeline.because = self._why(pipeline, now) or (
            decision.because
            if pipeline.want <= target
            else f"wants {pipeline.want} jobs, gets {target} of the cap (scaling.caps)"
        )
        must_go = contended or pipeline.paused or bool(self.budget.why()) or pipeline.most is not None
        acts = self._reclaim(pipeline, fleet.workers // pipeline.slots - target, now) if must_go else []
        if decision.start:
            pipeline.surplus_since = None
            return acts + self._start(pipeline, law.jobs_for(decision.start, pipeline.slots), now)
        return acts + self._cancel(
            pipeline, decision.surplus // pipeline.slots, now, short=fleet.workers < target * pipeline.slots
        )

    def _why(self, pipeline: PipelineState, now: float) -> str:
        if not self.ledger.known:
            return f"the jobs are not known ({self.ledger.trouble or 'not seen yet'}), so nothing is started"
        if pipeline.paused:
            return f"paused; to resume: beamtide scale {pipeline.name} --resume"
        if pipeline.full:
            return f"there is no room for its results, so nothing is started: {pipeline.full}"
        if self.caps.jobs == 0:
            return "scaling.caps.jobs is 0, so nothing is ever started"
        return self.budget.why() or pipeline.breaker.why(now) or self.learned.why(now)

    def _start(self, pipeline: PipelineState, wanted: int, now: float) -> list[Act]:
        unclear = any(order.unclear for order in self.ledger.unanswered(pipeline.name))
        if not self.ledger.known or unclear or pipeline.full or now - pipeline.cancelled_at < SETTLE:
            return []
        starting = sum(job.heard is None for job in self.ledger.of(pipeline.name)) + len(self.ledger.unanswered(pipeline.name))
        room = self._room(pipeline, now)
        count = min(pipeline.breaker.allows(wanted, starting, now), room, MOST_IN_ARRAY)
        if count <= 0:
            return []
        self._count += 1
        token = token_of(self.ledger.owner, f"{self.series}-{self._count}", pipeline.slots, pipeline.name)
        order = Order(token, pipeline.name, count, pipeline.slots, now, self.costs.get(pipeline.name, 1.0))
        self.ledger.asked(order)
        pipeline.submitted_at = now
        per_slot = pipeline.tasks_per_slot()
        fixed = pipeline.config.job.tasks_per_job
        tasks = per_slot * pipeline.slots if fixed == "auto" else fixed
        longest = pipeline.gauge.service_p99 if pipeline.gauge else 0.0
        seconds = pipeline.config.job.walltime or law.walltime(per_slot, longest or pipeline.service_time, pipeline.cold_start())
        return [Start(order, tasks, int(seconds), self.nodes.avoided(now))]

    def _room(self, pipeline: PipelineState, now: float) -> int:
        room = self.learned.room(self.caps.jobs, now) - self.ledger.alive()
        if pipeline.most is not None:
            there = len(self.ledger.of(pipeline.name)) + sum(order.count for order in self.ledger.unanswered(pipeline.name))
            room = min(room, pipeline.most - there)
        if self.caps.cpus:
            fleets = {name: one.fleet(self.ledger, now) for name, one in self.pipelines.items()}
            taken = sum(
                (fleet.workers + fleet.pending) // self.pipelines[name].slots * self._width(name)
                for name, fleet in fleets.items()
            )
            room = min(room, (self.caps.cpus - taken) // self._width(pipeline.name))
        return room

    def _cancel(self, pipeline: PipelineState, surplus: int, now: float, *, short: bool) -> list[Act]:
        waiting = self.ledger.waiting(pipeline.name)[:surplus] if surplus > 0 and self.ledger.known else []
        if not waiting:
            pipeline.surplus_since = None
            return []
        pipeline.surplus_since = now if pipeline.surplus_since is None else pipeline.surplus_since
        if now - pipeline.surplus_since < (SETTLE if short else VOTE) or now - pipeline.submitted_at < SETTLE:
            return []
        pipeline.surplus_since, pipeline.cancelled_at = None, now
        return [self._withdraw(waiting, "more jobs wait than are needed", now)]

    def _reclaim(self, pipeline: PipelineState, too_many: int, now: float) -> list[Act]:
        """Ask jobs beyond the share to leave after their present task: idle ones first."""
        if too_many <= 0:
            return []
        working = sorted(self.ledger.of(pipeline.name, WORKING), key=lambda job: (job.state is not JobState.IDLE, job.since))
        self.ledger.told([job.id for job in working[:too_many]], now)
        return []

    def _overdue(self, now: float) -> list[Act]:
        usual = max((pipeline.start() for pipeline in self.pipelines.values()), default=0.0)
        late = self.ledger.overdue(usual, now) if self.ledger.known else []
        return [self._withdraw(late, "it runs, but its workers send no messages", now)] if late else []

    def _withdraw(self, jobs: list[Job], reason: str, now: float) -> Withdraw:
        ids = tuple(job.id for job in jobs)
        self.ledger.told(ids, now)
        return Withdraw(ids, reason)
