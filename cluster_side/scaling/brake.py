"""A brake per pipeline: jobs that fail again and again are not started for a while.

Theory: after `FAILURES` jobs in a row that failed, nothing is started for 5, 10, 20 … 300 s, then one job as a probe;
a job that ends well lets go. Clock policy: `now` is the caller's monotonic clock in seconds.
Invariants: never more than one job between two pauses.
"""

from dataclasses import dataclass

FAILURES = 5
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0


@dataclass(slots=True)
class Brake:
    """Counts failures in a row."""

    failures: int = 0
    until: float = 0.0

    def ended(self, well: bool, now: float) -> None:
        """Note how a job ended."""
        if well:
            self.failures, self.until = 0, 0.0
            return
        self.failures += 1
        if self.failures >= FAILURES:
            doublings = min(self.failures - FAILURES, 10)
            self.until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**doublings)

    def allows(self, wanted: int, alive: int, now: float) -> int:
        """Return how many of `wanted` jobs may be started."""
        if now < self.until:
            return 0
        if self.failures >= FAILURES:
            return min(wanted, max(0, 1 - alive))
        return wanted

    def why(self, now: float) -> str:
        """Return what holds jobs back, or ""."""
        if now >= self.until:
            return ""
        again = f"tries again in {self.until - now:.0f} s"
        return f"the last {self.failures} jobs failed (see their logs in the state folder); {again}"
