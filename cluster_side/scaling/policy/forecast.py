"""The forecast from announced scans: the tasks of one pipeline that will come within the time that a job needs to start.

Theory: an announcement says when the first frame comes, how many tasks there will be, and how fast. It is believed until the
facts contradict it: when nothing came by t0 + max(10 s, 2 L), or less than half of what was due, the measured rate is used.

Clock policy: `now` is the caller's monotonic clock in seconds; an announcement counts from when it was received.
Invariants: never more is expected than the remaining tasks of a scan; nothing is expected of a scan that ended or is not
believed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from beamtide.config.models import PipelineConfig
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import ScanState

PATIENCE = 10.0
"""Seconds after the promised start in which the first task must come, or two cold starts if that is longer."""
BELIEVED = 0.5
"""The share of what is due that must have come."""


@dataclass(slots=True)
class Announcement:
    """One scan: `count` tasks from `begins` on, `rate` per second (0 = not known); `before` had arrived when we heard of it."""

    begins: float
    count: float
    rate: float
    before: int
    running: bool = False

    def due(self, at: float) -> float:
        """Return how many tasks should have come by then; one at the beginning where the rate is not known."""
        if at < self.begins:
            return 0.0
        return min(self.count, (at - self.begins) * self.rate if self.rate else 1.0)


@dataclass(frozen=True, slots=True)
class Expected:
    """What comes: tasks within the horizon, and tasks per second then."""

    tasks: float
    rate: float


@dataclass(slots=True)
class Forecast:
    """The announcements of one pipeline."""

    pipeline: PipelineConfig
    arrived: int = 0
    """Tasks that came to the buffer since we look."""
    _seen: int = 0
    _open: dict[ScanId, Announcement] = field(default_factory=dict)

    def arrivals(self, total: int) -> None:
        """Handle the buffer's count of all tasks that it ever had; it starts at 0 when the buffer restarts."""
        self.arrived += max(0, total - self._seen)
        self._seen = total

    def heard(self, states: Iterable[ScanState], now: float) -> None:
        """Handle the scans that changed."""
        for state in states:
            if state.phase == "ended":
                self._open.pop(state.scan.id, None)
                continue
            running, known = state.phase == "running", self._open.get(state.scan.id)
            if known is not None and known.running == running:
                continue
            begins = now if running else now + state.starts_in
            rate, count = self._rate(state), self._count(state)
            before = self.arrived if known is None else known.before
            self._open[state.scan.id] = Announcement(begins, count, rate, before, running)

    def expected(self, now: float, cold_start: float) -> Expected | None:
        """Return what is expected within a cold start; None: nobody announced anything, or it is not believed."""
        for scan, one in list(self._open.items()):
            if not self._believed(one, now, cold_start):
                del self._open[scan]
        if not self._open:
            return None
        then, scans = now + cold_start, self._open.values()
        tasks = sum(one.due(then) - one.due(now) for one in scans)
        rate = sum(one.rate for one in scans if then >= one.begins and one.due(now) < one.count)
        return Expected(tasks, rate)

    def _believed(self, one: Announcement, now: float, cold_start: float) -> bool:
        if one.rate and one.due(now) >= one.count:
            return False  # all its tasks should be here: the queue shows them
        if now < one.begins + max(PATIENCE, 2 * cold_start):
            return True
        came = self.arrived - one.before
        return came >= max(1.0, BELIEVED * one.due(now)) and bool(one.rate)

    def _count(self, state: ScanState) -> float:
        return max(1.0, state.points / self._points_per_task(state))

    def _rate(self, state: ScanState) -> float:
        period = state.scan.period * self._points_per_task(state)
        return 1.0 / period if period > 0 else 0.0

    def _points_per_task(self, state: ScanState) -> float:
        size = self.pipeline.source.frames_per_task
        return float(size) if isinstance(size, int) else float(state.points if size == "scan" else state.scan.shape[-1])
