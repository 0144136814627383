"""How fast tasks come and go: what the scaling law reads from a buffer. Time is the caller's monotonic clock in seconds."""

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 30.0
WEIGHT = 0.1


@dataclass(slots=True)
class Tempo:
    """Arrivals over the last 30 s, and the exponentially weighted mean service time."""

    service_time: float = 0.0
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    _first: float | None = None

    def arrived(self, count: int, now: float) -> None:
        """Count tasks that came."""
        if self._first is None:
            self._first = now
        if count:
            self._arrivals.append((now, count))

    def served(self, seconds: float) -> None:
        """Note how long one task took from lease to verdict; what is no time at all (NaN) would stay in the mean for ever."""
        if not 0.0 <= seconds < math.inf:
            return
        self.service_time += (seconds - self.service_time) * (WEIGHT if self.service_time else 1.0)

    def arrival_rate(self, now: float) -> float:
        """Return tasks per second over the last 30 s, or since the first arrival if that is less."""
        while self._arrivals and self._arrivals[0][0] < now - WINDOW:
            self._arrivals.popleft()
        span = min(WINDOW, max(1.0, now - (now if self._first is None else self._first)))
        return sum(count for _, count in self._arrivals) / span
