"""The clock of leases: the caller's monotonic clock, without the time in which the buffer was paused.

Theory: a paused buffer missed heartbeats, so it must not count that time against leases. After a pause (a debugger, a frozen
virtual machine, a disk that hangs) heartbeats may still wait in the network. So a gap between two events counts as `MOST` seconds
at most: every worker keeps the rest of its lease to be heard.

Clock policy: `now` is the caller's monotonic clock in seconds; the pump reads it at least once a second.
Invariant: lease time never runs faster than `now`, and stands still only while the buffer is paused.
"""

import math
from dataclasses import dataclass

from beamtide.messages.base import Seconds

MOST = 1.5


@dataclass(slots=True)
class LeaseClock:
    """Counts the time in which the buffer runs."""

    _last: float = math.inf
    _stood_still: float = 0.0

    def at(self, now: Seconds) -> Seconds:
        """Return the time for leases."""
        if now - self._last > MOST:
            self._stood_still += now - self._last - MOST
        self._last = now
        return Seconds(now - self._stood_still) if self._stood_still else now

    def when(self, time: float) -> float:
        """Return the time on the caller's clock for a lease time, if the buffer is not paused until then."""
        return time + self._stood_still
