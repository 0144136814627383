"""The node-hours that jobs used in the last 24 hours, kept by the hour.

Theory: a job uses its nodes, or its share of one, while it runs; pending jobs use nothing. The budget is the most that may be
used in any 24 hours; when it is used up, nothing starts until an hour of yesterday leaves the window.

Clock policy: `now` is the caller's monotonic clock; `utc` at the start dates the hours, so that they survive a restart.
Invariants: an hour is counted once; hours more than 24 hours ago do not count.
"""

from dataclasses import dataclass, field

HOUR, WINDOW = 3600.0, 24


@dataclass(slots=True)
class NodeHourBudget:
    """Node-seconds by the hour (hours since 1970)."""

    node_hours_per_day: float
    offset: float
    """Unix time minus `now`."""
    hours: dict[int, float] = field(default_factory=dict)
    _last: float | None = None

    def spend(self, nodes: float, now: float) -> None:
        """Note that so many nodes were in use since the last call."""
        passed, self._last = 0.0 if self._last is None else max(0.0, now - self._last), now
        hour = int((now + self.offset) // HOUR)
        if nodes > 0 and passed:
            self.hours[hour] = self.hours.get(hour, 0.0) + nodes * passed
        self.hours = {one: spent for one, spent in self.hours.items() if one > hour - WINDOW}

    def spent(self) -> float:
        """Return the node-hours of the last 24 hours."""
        return sum(self.hours.values()) / HOUR

    def why(self) -> str:
        """Return why nothing may start any more, or ""."""
        if self.spent() < self.node_hours_per_day:
            return ""
        return (
            f"the budget is spent: {self.spent():.1f} of {self.node_hours_per_day:g} node-hours in 24 h"
            " (scaling.caps.node_hours_per_day)"
        )
