"""The clock of leases: the caller's monotonic clock, without the time in which the buffer stood still.

Theory: who does not listen cannot know that somebody is silent. A buffer that was stopped for a minute (a debugger, a frozen
virtual machine, a disk that hangs) comes back to a pile of beats, and the kernel may not have handed over even the first of
them. So a gap between two events counts as `MOST` seconds and no more: every holder has the rest of its lease to be heard.

Clock policy: `now` is the caller's monotonic clock in seconds; the pump looks at the clock at least once a second.
Invariant: lease time never runs faster than `now`, and stands still only when the buffer does.
"""

import math
from dataclasses import dataclass

from beamtide.messages.base import Seconds

MOST = 1.5


@dataclass(slots=True)
class LeaseClock:
    """Counts the time in which the buffer listens."""

    _last: float = math.inf
    _stood_still: float = 0.0

    def at(self, now: Seconds) -> Seconds:
        """Return the time for leases."""
        if now - self._last > MOST:
            self._stood_still += now - self._last - MOST
        self._last = now
        return Seconds(now - self._stood_still) if self._stood_still else now

    def when(self, time: float) -> float:
        """Return when on the caller's clock a time for leases comes, if nothing stands still until then."""
        return time + self._stood_still
