"""The ledger of jobs: what was ordered, what the batch system lists, and whose workers the buffers hear.

Theory: three parties know about a job, and none of them is always right. So an order is on our disk with its token before the
batch system gets it; jobs that the batch system lists are matched by that token; and a job works when the buffers say so. An
order with an unclear answer counts as accepted until its jobs were missing from the listings for `LOOK_FOR` seconds. A job is
closed when the batch system says how it ended, or when it is missing from `MISSES` good listings. A listing without more than
half of the jobs that are sending heartbeats is not good. After a restart nothing is ordered before the first good listing. A
controller that was killed comes back with an old state (measured: 20 s old): a closed job that a good listing shows alive counts
for the cap again, and an id that is used again belongs to the job with the new token. Source: ADR 0016.

Clock policy: `now` is the caller's monotonic clock in seconds; the age of a job found after a restart counts from then on.
Invariants (`check`): every job is in one state and is counted once; after a good listing, all jobs that it shows alive are
counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster_side.scaling.jobs.states import (
    ALIVE,
    TRANSITIONS,
    WORKING,
    Ended,
    Job,
    JobFact,
    JobState,
    News,
    Order,
    Refusal,
    Registered,
    order_of,
)
from cluster_side.scaling.launchers.base import (
    Denied,
    EndCause,
    JobListing,
    Phase,
    Sighting,
    SubmitAnswer,
    Submitted,
    Unclear,
    Unseen,
)

LOOK_FOR = 60.0
MISSES = 2
REGISTER_WITHIN = 120.0
"""A job that runs for so many seconds without a message from its workers is withdrawn; 3 usual starts, if that is longer."""
PRESENT = 1.5
"""A worker counts as present for so many seconds after its last message: longer than a tick."""
SILENT_FOR = 60.0
"""A running job is withdrawn after so many seconds without a message from its workers."""
REMEMBERED = 200


@dataclass(slots=True)
class Ledger:
    """All orders and jobs of one deployment; `owner` begins each of its tokens."""

    owner: str
    orders: dict[str, Order] = field(default_factory=dict)
    """Orders with jobs that may be alive, by token."""
    jobs: dict[str, Job] = field(default_factory=dict)
    closed: dict[str, Job] = field(default_factory=dict)
    """The last jobs that closed."""
    listed_at: float | None = None
    present: float = PRESENT
    trouble: str = ""
    """Why the last listing was not good, or ""."""
    _listing: JobListing | None = None

    @property
    def known(self) -> bool:
        """Whether the last listing was good; otherwise nothing may be ordered."""
        return self._listing is not None and not self.trouble

    def restore(self, orders: Iterable[Order], now: float) -> None:
        """Restore the orders of an earlier autoscaler; they are unclear until the first good listing."""
        for order in orders:
            self.orders[order.token] = kept = replace(order, asked=now, unclear=not order.ids)
            for job in order.ids:
                self.jobs[job] = Job(Sighting(job, order.token, Phase.UNKNOWN), kept, JobState.ASKED, now)

    def asked(self, order: Order) -> None:
        """Note an order before it is submitted."""
        self.orders[order.token] = order

    def answered(self, token: str, answer: SubmitAnswer, now: float) -> list[News]:
        """Handle the answer to an order."""
        if (order := self.orders.get(token)) is None:
            return []
        match answer:
            case Submitted(ids):
                self.orders[token] = order = replace(order, ids=ids, unclear=False)
                for job in ids:
                    self._given_again(job, token, now)
                    if job not in self.jobs and job not in self.closed:
                        self.jobs[job] = Job(Sighting(job, token, Phase.PENDING), order, JobState.ASKED, now)
            case Denied(cause, reason):
                del self.orders[token]
                return [Refusal(order, cause, reason)]
            case Unclear():
                self.orders[token] = replace(order, unclear=True, asked=now)
        return []

    def listed(self, listing: JobListing, now: float) -> list[News]:
        """Handle a listing of the batch system; the same listing twice changes nothing."""
        if isinstance(listing, Unseen):
            self.trouble = listing.reason
            return []
        if listing is self._listing:
            return []
        ours = {job: seen for job, seen in listing.jobs.items() if seen.token.startswith(f"{self.owner}.")}
        if trouble := self._contradiction(ours, now):
            self.trouble = trouble
            return []
        self.trouble, self._listing, self.listed_at = "", listing, now
        news: list[News] = []
        for seen in ours.values():
            news += self._seen(seen, now)
        return news + self._missing(ours, now) + self._unclear(now)

    def workers_heard(self, pipeline: Mapping[str, tuple[int, int]], now: float) -> list[News]:
        """Handle a buffer's report of how many workers of each job (by `Sighting.job`) wait and work."""
        news: list[News] = []
        for job in [*self.jobs.values(), *self.closed.values()]:
            if (found := pipeline.get(job.sighting.job)) is None or (job.state is JobState.CLOSED and job.heard is not None):
                continue
            if job.heard is not None and not any(found):
                continue  # its worker came and went, or the next one is starting
            if job.heard is None:
                start = None if job.started is None else now - job.started
                news.append(Registered(job, now - job.order.asked, start))
            job.heard, job.workers = now, max(job.order.slots, sum(found))
            self._learn(job, JobFact.WORKS if found[1] else JobFact.ASKS, now)
        return news

    def working(self, pipeline: str, now: float) -> int:
        """Return the slots of the jobs heard of just now; a job that ended is silent before a listing shows its end."""
        there = self.of(pipeline, WORKING)
        return sum(job.workers for job in there if job.heard is not None and now - job.heard < self.present)

    def told(self, ids: Iterable[str], now: float) -> None:
        """Note that these jobs were told to leave."""
        for job in ids:
            if job in self.jobs:
                self._learn(self.jobs[job], JobFact.TOLD, now)

    def overdue(self, usual_start: float, now: float) -> list[Job]:
        """Return the jobs that run but do not work: never heard of, or silent for too long."""
        limit, found = max(REGISTER_WITHIN, 3 * usual_start), []
        for job in self.jobs.values():
            late = job.state is JobState.STARTING and job.started is not None and now - job.started > limit
            silent = job.state in WORKING and job.heard is not None and now - job.heard > SILENT_FOR
            found += [job] if late or silent else []
        return found

    def waiting(self, pipeline: str) -> list[Job]:
        """Return the jobs that have not started, newest first."""
        found = [job for job in self.jobs.values() if job.order.pipeline == pipeline and job.state is JobState.PENDING]
        return sorted(found, key=lambda job: (job.order.asked, job.id), reverse=True)

    def of(self, pipeline: str, states: frozenset[JobState] = ALIVE) -> list[Job]:
        """Return the jobs of a pipeline in these states."""
        return [job for job in self.jobs.values() if job.order.pipeline == pipeline and job.state in states]

    def unanswered(self, pipeline: str = "") -> list[Order]:
        """Return the orders whose job ids are not known yet; they count as pending jobs."""
        return [order for order in self.orders.values() if not order.ids and pipeline in ("", order.pipeline)]

    def alive(self) -> int:
        """Return how many jobs there are or may be, of all pipelines."""
        return len(self.jobs) + sum(order.count for order in self.unanswered())

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert not self.jobs.keys() & self.closed.keys(), "a job is alive and closed"
        assert all(job.state in ALIVE for job in self.jobs.values()), "a closed job is counted"
        assert all(job.order.token in self.orders for job in self.jobs.values()), "a job without its order"

    def _given_again(self, job: str, token: str, now: float) -> None:
        if (old := self.jobs.get(job)) is not None and old.order.token != token:
            self._close(old, EndCause.DONE, now)
        if (gone := self.closed.get(job)) is not None and gone.order.token != token:
            del self.closed[job]

    def _seen(self, seen: Sighting, now: float) -> list[News]:
        self._given_again(seen.id, seen.token, now)
        if (job := self.jobs.get(seen.id)) is None:
            if seen.phase in (Phase.ENDED, Phase.FAILED):
                return self._stillborn(seen, now)
            job = self._adopt(seen, now)
        again = seen.restarts != job.sighting.restarts
        job.sighting, job.misses = seen, 0
        match seen.phase:
            case Phase.PENDING:
                job.started = None
                self._learn(job, JobFact.WAITS, now)
            case Phase.RUNNING:
                job.started = now if job.started is None or again else job.started
                self._learn(job, JobFact.RUNS, now)
            case Phase.ENDED | Phase.FAILED:
                return [self._close(job, seen.cause or (EndCause.DONE if seen.phase is Phase.ENDED else EndCause.CODE), now)]
        return []

    def _stillborn(self, seen: Sighting, now: float) -> list[News]:
        """Handle a job that ended before we knew its id."""
        if (order := self.orders.get(seen.token)) is None or order.ids or seen.id in self.closed:
            return []
        self._adopt(seen, now)
        return self._seen(seen, now)

    def _adopt(self, seen: Sighting, now: float) -> Job:
        self.closed.pop(seen.id, None)  # it came back under the same id
        order = self.orders.get(seen.token) or order_of(seen.token, now)
        if seen.id not in order.ids:
            order = replace(order, ids=(*order.ids, seen.id), unclear=False)
        self.orders[seen.token] = order
        self.jobs[seen.id] = Job(seen, order, JobState.ASKED, now)
        return self.jobs[seen.id]

    def _missing(self, ours: Mapping[str, Sighting], now: float) -> list[News]:
        news: list[News] = []
        for job in list(self.jobs.values()):
            if job.id in ours:
                continue
            job.misses += 1
            if job.misses >= MISSES:
                news.append(self._close(job, EndCause.CANCELLED if job.state is JobState.LEAVING else EndCause.DONE, now))
        return news

    def _unclear(self, now: float) -> list[News]:
        late = [order for order in self.orders.values() if order.unclear and now - order.asked > LOOK_FOR]
        for order in late:
            del self.orders[order.token]
        return [Refusal(order, EndCause.DOWN, f"an order for {order.count} jobs was never seen again") for order in late]

    def _contradiction(self, ours: Mapping[str, Sighting], now: float) -> str:
        heard = [job for job in self.jobs.values() if job.heard is not None and now - job.heard < SILENT_FOR / 6]
        missing = sum(job.id not in ours for job in heard)
        if missing <= max(1, len(heard) // 2):
            return ""
        return f"the batch system omits {missing} of {len(heard)} jobs that are sending heartbeats; keeping them"

    def _learn(self, job: Job, fact: JobFact, now: float) -> None:
        state = TRANSITIONS.get((job.state, fact), job.state)
        if state is not job.state:
            job.state, job.since = state, now
            job.heard = None if fact is JobFact.WAITS else job.heard

    def _close(self, job: Job, cause: EndCause, now: float) -> Ended:
        self._learn(job, JobFact.OVER, now)
        job.cause = cause
        self.jobs.pop(job.id)
        self.closed[job.id] = job
        if len(self.closed) > REMEMBERED:
            del self.closed[next(iter(self.closed))]
        token = job.order.token
        if not any(one.order.token == token for one in self.jobs.values()):
            self.orders.pop(token, None)
        return Ended(job, cause, job.sighting.reason, job.heard is not None)
