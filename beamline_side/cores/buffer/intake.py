"""The intake of a buffer: pulls the distributor's journal with a cursor; verdicts go back in the same requests.

Theory: the cursor is the last entry on our disk. One request is under way; a newer one replaces it, at the distributor too. A
request after the cursor confirms all entries up to it, and entries that come twice are recognised by their number. A verdict is
kept (`verdicts_to_distributor`) until the distributor names it, in its generation, as confirmed.

Clock policy: `now` is the caller's monotonic clock; verdicts are reported at most every `PACE` seconds and again after
`PATIENCE`. Invariants: the cursor never goes back; entries are taken in journal order without gaps.
"""

from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.buffer.verdicts_to_distributor import VerdictsToDistributor
from beamtide.machine import Effect, Keep, Send, Shelf, WakeAt, link
from beamtide.messages.base import PipelineName, Seconds
from beamtide.messages.tasks import Entry, Pulled, PullRequest
from beamtide.session import Poll

CREDIT = 1000
REFILL = 500
"""The next pull waits for room for so many entries, so that a full buffer does not pull one by one."""
PACE = 0.05
PATIENCE = 2.0


@dataclass(slots=True)
class Intake:
    """The pull of one pipeline."""

    pipeline: PipelineName
    shelf: Shelf
    most: int = CREDIT
    """The most tasks that may wait in the buffer."""
    cursor: int = 0
    _poll: Poll = field(default_factory=Poll)
    _asked_credit: int = 0
    _report_at: float = 0.0
    to_distributor: VerdictsToDistributor = field(init=False)

    def __post_init__(self) -> None:
        for _, body in self.shelf.rows("cursor"):
            self.cursor = msgspec.msgpack.decode(body, type=int)
        self.to_distributor = VerdictsToDistributor(self.shelf)

    def questions(self, now: Seconds, waiting: int) -> list[Effect]:
        """Pull and report, if that is due; `waiting` tasks have not been leased."""
        credit = min(CREDIT, self.most - waiting) if waiting <= self.most - REFILL else 0
        report = bool(self.to_distributor) and now >= self._report_at
        due = report or self._poll.due(now)
        if not due and (self._asked_credit or not credit):
            return []
        credit = 0 if credit and self.shelf.room(0) else credit
        if not (due or credit):
            return []
        closed = self.to_distributor.report() if report else ()
        if report:
            self._report_at = now + PATIENCE
        self._asked_credit = credit
        request = PullRequest(pipeline=self.pipeline, after=self.cursor, credit=credit, wait=self._poll.wait, closed=closed)
        return [Send(link("distributor"), request), self._poll.asked(now)]

    def heard(self, answer: Pulled, now: Seconds) -> tuple[list[Entry], list[Effect]]:
        """Handle an answer; return the new entries, and the rows to keep."""
        effects: list[Effect] = []
        generations = answer.generations or (0,) * len(answer.confirmed)
        for task, generation in zip(answer.confirmed, generations, strict=False):
            effects += self.to_distributor.confirm(task, generation)
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
        """Ask again in a moment: the distributor does not answer, or does not know us."""
        self._report_at = now + 1.0
        return [self._poll.rest(now, 1.0)]

    def wake(self) -> float | None:
        """Return when a report is due."""
        return self._report_at if self.to_distributor else None
