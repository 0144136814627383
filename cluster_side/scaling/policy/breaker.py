"""Stops new jobs when they fail: a circuit breaker per pipeline, a learned limit, and nodes to avoid.

Theory: a job that ends before any of its workers was heard of is a failed start. After `FAILURES` of them in a row nothing is
started for 5, 10, 20 … 300 s, then one job as a probe; the first worker that is heard of closes the breaker again. A refusal that
only a person can resolve opens the breaker at once. Ends that are no failure (cancelled, preempted, walltime, a node's failure)
never count. A limit of the batch system is learned for five minutes: after each refusal, half of what was too many may be tried.
A node that failed, or on which two jobs in a row did not start, is avoided for ten minutes. Source: circuit breaker, M. Nygard,
Release It!, 2nd ed. (2018), chapter 5; ADR 0016.

Clock policy: `now` is the caller's monotonic clock in seconds.
Invariants: while a breaker is open nothing starts; after a pause, one job at a time until one of them works.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster_side.scaling.launchers.base import EndCause

FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
LEARNED_FOR = 300.0
AVOID_FOR = 600.0
COUNTED = frozenset({EndCause.START, EndCause.MEMORY, EndCause.CODE, EndCause.DONE})
"""Ends that count as a failed start when no worker was heard of: also a normal end of a job that never asked for a task."""


@dataclass(slots=True)
class Breaker:
    """Counts failed starts in a row of one pipeline; `said` is what the last one was."""

    failures: int = 0
    until: float = 0.0
    said: str = ""

    def ended(self, cause: EndCause, reason: str, now: float) -> None:
        """Note the end of a job of which no worker was ever heard."""
        if cause in COUNTED:
            self._failed(f"the last {self.failures + 1} jobs ended before they worked: {reason or cause.value}", now)

    def denied(self, cause: EndCause, reason: str, now: float) -> None:
        """Note an order that was refused."""
        if cause is EndCause.LIMIT:
            return
        if cause is EndCause.RULES:
            self.failures = max(self.failures, FAILURES - 1)
        if cause is EndCause.DOWN:
            self.until, self.said = now + FIRST_PAUSE, reason
            return
        self._failed(reason, now)

    def works(self) -> None:
        """Note that a worker was heard of."""
        self.failures, self.until, self.said = 0, 0.0, ""

    def allows(self, wanted: int, starting: int, now: float) -> int:
        """Return how many of `wanted` jobs may be started while `starting` others have not been heard of yet."""
        if now < self.until:
            return 0
        if self.failures >= FAILURES:
            return min(wanted, max(0, 1 - starting))
        return wanted

    def why(self, now: float) -> str:
        """Return why no jobs are started, or ""."""
        if now < self.until:
            return f"{self.said}; tries again in {self.until - now:.0f} s"
        return f"{self.said}; tries one job" if self.failures >= FAILURES else ""

    def _failed(self, said: str, now: float) -> None:
        self.failures += 1
        self.said = said
        if self.failures >= FAILURES:
            doublings = min(self.failures - FAILURES, 10)
            self.until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**doublings)


@dataclass(slots=True)
class LearnedCap:
    """A limit of the batch system, learned from refusals: jobs of all pipelines together."""

    jobs: int | None = None
    until: float = 0.0
    said: str = ""

    def hit(self, jobs: int, refused: int, reason: str, now: float) -> None:
        """Note that `refused` more than `jobs` were too many: half of them may fit, the next refusal halves again."""
        self.jobs, self.until, self.said = max(1, jobs + refused // 2), now + LEARNED_FOR, reason

    def room(self, cap: int, now: float) -> int:
        """Return the cap as it is now."""
        return cap if self.jobs is None or now >= self.until else min(cap, self.jobs)

    def why(self, now: float) -> str:
        """Return what was learned, or ""."""
        if self.jobs is None or now >= self.until:
            return ""
        return f"the batch system takes no more than {self.jobs} jobs now ({self.said}); asks again in {self.until - now:.0f} s"


@dataclass(slots=True)
class BadNodes:
    """Which nodes to avoid, and until when."""

    _avoid: dict[str, float] = field(default_factory=dict)
    _suspects: set[str] = field(default_factory=set)

    def ended(self, cause: EndCause, nodes: Iterable[str], now: float) -> None:
        """Note how a job of which no worker was heard ended on these nodes."""
        for node in nodes:
            if cause is EndCause.NODE or (cause is EndCause.START and node in self._suspects):
                self._avoid[node] = now + AVOID_FOR
            elif cause is EndCause.START:
                self._suspects.add(node)

    def work(self, nodes: Iterable[str]) -> None:
        """Note that a worker there was heard of."""
        self._suspects.difference_update(nodes)

    def avoided(self, now: float) -> tuple[str, ...]:
        """Return the nodes to avoid."""
        self._avoid = {node: until for node, until in self._avoid.items() if until > now}
        return tuple(sorted(self._avoid))
