"""What to do now: for all pipelines together, from queues, announcements, jobs and brakes to orders and cancellations.

Theory: each pipeline wishes (law), the wishes share the caps, and the difference to what is there is ordered, cancelled, or asked
to leave at the task boundary. What is not known freezes growth: a queue that does not answer, a picture of the batch system that
is no good, an order whose fate is unclear. So does a sorter without room: further jobs would only wait with what they computed.
Surplus pending jobs are cancelled newest first, after 3 s; after a cancellation nothing is ordered for 3 s, and the other way
round, so that the two never chase each other.
The daemon and the simulation drive this same object.

Clock policy: `now` is the caller's monotonic clock in seconds.
Invariants: alive jobs never pass the caps; nothing is ordered while the picture is unknown; one order per pipeline and step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cluster_side.scaling.jobs.ledger import Ledger
from cluster_side.scaling.jobs.states import WORKING, Ended, Job, News, Order, Refusal, Registered, State, token_of
from cluster_side.scaling.launchers.base import MOST_IN_ARRAY, Cause, Picture
from cluster_side.scaling.policy import law
from cluster_side.scaling.policy.breaker import Learned, Nodes
from cluster_side.scaling.policy.budget import Budget
from cluster_side.scaling.policy.pipeline import Crew

SETTLE = 3.0
"""Seconds between an order and a cancellation of one pipeline."""
VOTE = 1.0
"""Seconds for which pending jobs must be too many, where nothing else is missing."""
CONTENDED = 0.98


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be there at once: jobs, and CPUs of all jobs together (0: no limit but that of jobs)."""

    jobs: int
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class Buy:
    """Effect: order jobs. `order` is in the ledger; it must be on disk before the batch system hears of it."""

    order: Order
    tasks: int
    walltime: int
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Effect: cancel these jobs."""

    ids: tuple[str, ...]
    reason: str


Act: TypeAlias = Buy | TakeBack


@dataclass(slots=True)
class Steering:
    """All pipelines of one deployment. `series` begins the numbers of its tokens; `costs` is the nodes that one job takes."""

    crews: Mapping[str, Crew]
    ledger: Ledger
    caps: Caps
    budget: Budget
    drain_within: float
    series: str = "0"
    costs: Mapping[str, float] = field(default_factory=dict)
    launcher: str = ""
    """Where jobs run, for people."""
    learned: Learned = field(default_factory=Learned)
    nodes: Nodes = field(default_factory=Nodes)
    _count: int = 0

    def step(self, now: float) -> list[Act]:
        """Decide for every pipeline."""
        self.budget.spend(sum(job.order.cost for job in self.ledger.jobs.values() if job.started is not None), now)
        targets, contended = self._targets(now)
        acts: list[Act] = []
        for name, crew in self.crews.items():
            acts += self._decide(crew, targets[name], now, contended=contended)
        return acts + self._overdue(now)

    def pictured(self, picture: Picture, now: float) -> None:
        """Take what the batch system shows."""
        self.take(self.ledger.pictured(picture, now), now)

    def take(self, news: Iterable[News], now: float) -> None:
        """Draw conclusions from what happened to jobs and orders."""
        for one in news:
            match one:
                case Registered(job, after, start) if crew := self.crews.get(job.order.pipeline):
                    crew.breaker.works()
                    self.nodes.work(job.sighting.nodes)
                    crew.registered(job.sighting.job, after, start)
                case Ended(job, cause, reason, worked) if crew := self.crews.get(job.order.pipeline):
                    if cause is Cause.NODE or not worked:
                        self.nodes.ended(cause, job.sighting.nodes, now)
                    if not worked and job.state is not State.LEAVING:
                        crew.breaker.ended(cause, reason, now)
                case Refusal(order, cause, reason) if crew := self.crews.get(order.pipeline):
                    crew.breaker.denied(cause, reason, now)
                    if cause is Cause.LIMIT:
                        self.learned.hit(self.ledger.alive(), order.count, reason, now)

    def leaving(self, name: str) -> tuple[str, ...]:
        """Return the jobs (`Sighting.job`) whose workers should get no further task."""
        return tuple(job.sighting.job for job in self.ledger.of(name, frozenset({State.LEAVING})))

    def _width(self, name: str) -> int:
        job = self.crews[name].config.job
        return job.cpus * job.nodes if self.caps.cpus else 1

    def _targets(self, now: float) -> tuple[dict[str, int], bool]:
        """Return how many jobs each pipeline may have, and whether the caps bind."""
        wishes = {}
        for name, crew in self.crews.items():
            fleet = crew.fleet(self.ledger, now)
            slots = law.wish(crew.demand(now), fleet, self.drain_within, strict=crew.strict())
            crew.want, crew.keep = law.jobs_for(slots, crew.slots), slots if crew.expected else 0
            wishes[name] = law.Wish(self._allowed(crew), self._width(name))
        cap = self.learned.room(self.caps.jobs, now)
        if not self.caps.cpus:
            return law.share(wishes, cap), self._contended(wishes, cap)
        given = law.share(wishes, self.caps.cpus)
        shared = law.share({name: law.Wish(jobs) for name, jobs in given.items()}, cap)
        return shared, self._contended(wishes, self.caps.cpus)

    def _contended(self, wishes: Mapping[str, law.Wish], cap: int) -> bool:
        """Whether somebody wishes for more than it has, and the cap is taken: by wishes, or by jobs that are not needed now."""
        there = {name: len(self.ledger.of(name)) for name in wishes}
        claimed = sum(max(wish.jobs, there[name]) * wish.width for name, wish in wishes.items())
        return claimed > CONTENDED * cap and any(wish.jobs > there[name] for name, wish in wishes.items())

    def _allowed(self, crew: Crew) -> int:
        """Return how many jobs a pipeline may claim; what cannot start any leaves the rest of the cap to others."""
        if crew.paused or self.budget.why():
            return 0
        there = len(self.ledger.of(crew.name)) if crew.full else crew.want
        return min(crew.want, there if crew.most is None else min(there, crew.most))

    def _decide(self, crew: Crew, target: int, now: float, *, contended: bool) -> list[Act]:
        if not crew.known(now):
            crew.because = "its buffer does not answer, so nothing is started"
            return []
        fleet = crew.fleet(self.ledger, now)
        decision = law.decide(crew.demand(now), fleet, target * crew.slots, spare=crew.spare())
        crew.because = self._why(crew, now) or (
            decision.because if crew.want <= target else f"wants {crew.want} jobs, gets {target} of the cap (scaling.caps)"
        )
        must_go = contended or crew.paused or bool(self.budget.why()) or crew.most is not None
        acts = self._reclaim(crew, fleet.workers // crew.slots - target, now) if must_go else []
        if decision.start:
            crew.surplus_since = None
            return acts + self._buy(crew, law.jobs_for(decision.start, crew.slots), now)
        return acts + self._cancel(crew, decision.surplus // crew.slots, now, short=fleet.workers < target * crew.slots)

    def _why(self, crew: Crew, now: float) -> str:
        if not self.ledger.known:
            return f"the jobs are not known ({self.ledger.trouble or 'not seen yet'}), so nothing is started"
        if crew.paused:
            return f"paused; go on with: beamtide scale {crew.name} --resume"
        if crew.full:
            return f"its results have no room, so nothing is started: {crew.full}"
        if self.caps.jobs == 0:
            return "scaling.caps.jobs is 0, so nothing is ever started"
        return self.budget.why() or crew.breaker.why(now) or self.learned.why(now)

    def _buy(self, crew: Crew, wanted: int, now: float) -> list[Act]:
        unclear = any(order.unclear for order in self.ledger.unanswered(crew.name))
        if not self.ledger.known or unclear or crew.full or now - crew.cancelled_at < SETTLE:
            return []
        starting = sum(job.heard is None for job in self.ledger.of(crew.name)) + len(self.ledger.unanswered(crew.name))
        room = self._room(crew, now)
        count = min(crew.breaker.allows(wanted, starting, now), room, MOST_IN_ARRAY)
        if count <= 0:
            return []
        self._count += 1
        token = token_of(self.ledger.owner, f"{self.series}-{self._count}", crew.slots, crew.name)
        order = Order(token, crew.name, count, crew.slots, now, self.costs.get(crew.name, 1.0))
        self.ledger.asked(order)
        crew.submitted_at = now
        per_slot = crew.tasks_per_slot()
        fixed = crew.config.job.tasks_per_job
        tasks = per_slot * crew.slots if fixed == "auto" else fixed
        longest = crew.gauge.service_p99 if crew.gauge else 0.0
        seconds = crew.config.job.walltime or law.walltime(per_slot, longest or crew.service_time, crew.cold_start())
        return [Buy(order, tasks, int(seconds), self.nodes.avoided(now))]

    def _room(self, crew: Crew, now: float) -> int:
        room = self.learned.room(self.caps.jobs, now) - self.ledger.alive()
        if crew.most is not None:
            there = len(self.ledger.of(crew.name)) + sum(order.count for order in self.ledger.unanswered(crew.name))
            room = min(room, crew.most - there)
        if self.caps.cpus:
            fleets = {name: one.fleet(self.ledger, now) for name, one in self.crews.items()}
            taken = sum(
                (fleet.workers + fleet.pending) // self.crews[name].slots * self._width(name) for name, fleet in fleets.items()
            )
            room = min(room, (self.caps.cpus - taken) // self._width(crew.name))
        return room

    def _cancel(self, crew: Crew, surplus: int, now: float, *, short: bool) -> list[Act]:
        waiting = self.ledger.waiting(crew.name)[:surplus] if surplus > 0 and self.ledger.known else []
        if not waiting:
            crew.surplus_since = None
            return []
        crew.surplus_since = now if crew.surplus_since is None else crew.surplus_since
        if now - crew.surplus_since < (SETTLE if short else VOTE) or now - crew.submitted_at < SETTLE:
            return []
        crew.surplus_since, crew.cancelled_at = None, now
        return [self._take_back(waiting, "more jobs wait than are needed", now)]

    def _reclaim(self, crew: Crew, too_many: int, now: float) -> list[Act]:
        """Ask jobs beyond the share to leave after the task in hand: the idle ones first."""
        if too_many <= 0:
            return []
        working = sorted(self.ledger.of(crew.name, WORKING), key=lambda job: (job.state is not State.IDLE, job.since))
        self.ledger.told([job.id for job in working[:too_many]], now)
        return []

    def _overdue(self, now: float) -> list[Act]:
        usual = max((crew.start() for crew in self.crews.values()), default=0.0)
        late = self.ledger.overdue(usual, now) if self.ledger.known else []
        return [self._take_back(late, "it runs, but none of its workers is heard", now)] if late else []

    def _take_back(self, jobs: list[Job], reason: str, now: float) -> TakeBack:
        ids = tuple(job.id for job in jobs)
        self.ledger.told(ids, now)
        return TakeBack(ids, reason)
