"""Arrival rate and service times of a buffer, for the scaling law. Time is the caller's monotonic clock in seconds."""

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 30.0
SHORTEST = 5.0
PLAIN = 20
"""The first so many samples give a plain mean; after that each new sample counts with weight 1 / PLAIN."""
SAMPLES = 100


@dataclass(slots=True)
class Rates:
    """Arrivals over the last 30 s, and how long tasks took: the weighted mean, and percentiles of the last hundred."""

    service_time: float = 0.0
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)
    _first: float | None = None
    _count: int = 0
    _last: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def arrived(self, count: int, now: float) -> None:
        """Count tasks that came."""
        if self._first is None:
            self._first = now
        if count:
            self._arrivals.append((now, count))

    def served(self, seconds: float) -> None:
        """Note how long one task took from lease to verdict; NaN is ignored, because it would stay in the mean for ever."""
        if not 0.0 <= seconds < math.inf:
            return
        if self._count < PLAIN:
            self._count += 1
        self.service_time += (seconds - self.service_time) / self._count
        self._last.append(seconds)

    def percentile(self, percent: float) -> float:
        """Return a percentile of the service times of the last tasks; 0 while none is known."""
        ordered = sorted(self._last)
        return ordered[int(percent / 100 * (len(ordered) - 1) + 0.5)] if ordered else 0.0

    def arrival_rate(self, now: float) -> float:
        """Return tasks per second over the last 30 s, or since the first arrival if that is less (but 5 s)."""
        while self._arrivals and self._arrivals[0][0] < now - WINDOW:
            self._arrivals.popleft()
        span = min(WINDOW, max(SHORTEST, now - (now if self._first is None else self._first)))
        return sum(count for _, count in self._arrivals) / span
