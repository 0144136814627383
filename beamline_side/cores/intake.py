"""Where a buffer's tasks come from: the distributor's journal, pulled with a cursor; verdicts go back the same way.

Theory: the cursor is the last entry on our disk. One question is under way; a newer one supersedes it, at the distributor
too. Asking after the cursor confirms all before it, so entries that come twice are recognised by their number. A verdict is
a row of the spool until the distributor names it, in its generation, as confirmed.

Clock policy: `now` is the caller's monotonic clock; verdicts are reported at most every `PACE` seconds and again after
`PATIENCE`. Invariants: the cursor never goes back; entries are taken in journal order without gaps.
"""

import itertools
from dataclasses import dataclass, field

import msgspec

from beamtide.machine import Effect, Forget, Keep, Send, Shelf, WakeAt, link
from beamtide.messages.base import PipelineName, Seconds, TaskId
from beamtide.messages.tasks import Closed, Entry, Pulled, PullRequest
from beamtide.session import Poll

CREDIT = 1000
REFILL = 500
"""More is pulled when there is room for so many, so that a full buffer does not pull one by one."""
REPORT = 1000
"""Verdicts in one report."""
LARGEST_REPORT = 512 << 10
"""Bytes of one report: the distributor takes messages of 1 MiB at most."""
WIDEST = 4
"""Bytes of a character."""
PACE = 0.05
PATIENCE = 2.0
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Intake:
    """The pull of one pipeline."""

    pipeline: PipelineName
    shelf: Shelf
    most: int = CREDIT
    """Tasks that may wait in the buffer."""
    cursor: int = 0
    _closed: dict[TaskId, Closed] = field(default_factory=dict)
    _poll: Poll = field(default_factory=Poll)
    _asked_credit: int = 0
    _report_at: float = 0.0

    def __post_init__(self) -> None:
        for _, body in self.shelf.rows("cursor"):
            self.cursor = msgspec.msgpack.decode(body, type=int)
        closed = (msgspec.msgpack.decode(body, type=Closed) for _, body in self.shelf.rows("closed"))
        self._closed = {verdict.task: verdict for verdict in closed}

    def close(self, verdict: Closed) -> list[Effect]:
        """Take a verdict to report."""
        self._closed[verdict.task] = verdict
        return [Keep("closed", verdict.task, _encode(verdict))]

    def questions(self, now: Seconds, waiting: int) -> list[Effect]:
        """Ask and report, if it is time to; `waiting` tasks have not been handed out."""
        credit = min(CREDIT, self.most - waiting) if waiting <= self.most - REFILL else 0
        credit = 0 if credit and self.shelf.room(0) else credit
        report = bool(self._closed) and now >= self._report_at
        if not (report or self._poll.due(now) or (credit and not self._asked_credit)):
            return []
        closed = self._portion() if report else ()
        if report:
            self._report_at = now + PATIENCE
        self._asked_credit = credit
        request = PullRequest(pipeline=self.pipeline, after=self.cursor, credit=credit, wait=self._poll.wait, closed=closed)
        return [Send(link("distributor"), request), self._poll.asked(now)]

    def _portion(self) -> tuple[Closed, ...]:
        """Return verdicts to report, few enough for one message."""
        portion: list[Closed] = []
        size = 0
        for verdict in itertools.islice(self._closed.values(), REPORT):
            size += len(verdict.task) + len(verdict.reason) * WIDEST
            if portion and size > LARGEST_REPORT:
                break
            portion.append(verdict)
        return tuple(portion)

    def heard(self, answer: Pulled, now: Seconds) -> tuple[list[Entry], list[Effect]]:
        """Take an answer; return the entries that are new, and what to write down."""
        effects: list[Effect] = []
        generations = answer.generations or (0,) * len(answer.confirmed)
        for task, generation in zip(answer.confirmed, generations, strict=False):
            if (verdict := self._closed.get(task)) is not None and verdict.generation == generation:
                del self._closed[task]
                effects.append(Forget("closed", task))
        if answer.confirmed:
            self._report_at = now + PACE
        self._poll.answered()
        fresh = []
        for entry in answer.entries:
            if entry.seq == self.cursor + 1:
                self.cursor = entry.seq
                fresh.append(entry)
        if fresh:
            effects.append(Keep("cursor", "cursor", msgspec.msgpack.encode(self.cursor)))
        return fresh, effects

    def refused(self, now: Seconds) -> list[WakeAt]:
        """Ask again in a moment: the distributor is not there, or does not know us."""
        self._report_at = now + 1.0
        return [self._poll.rest(now, 1.0)]

    def wake(self) -> float | None:
        """Return when a report is due."""
        return self._report_at if self._closed else None

    def __len__(self) -> int:
        return len(self._closed)
