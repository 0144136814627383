"""The results of one product that wait to be released: by their first index, with the watermark up to which all are released.

Clock policy: `now` only says whether a release should be sent again. Invariants: ranges do not overlap, and none lies below
the watermark; `end` is where the contiguous run from the watermark ends.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

import msgspec

from beamtide.messages.base import Seconds, TaskId
from beamtide.messages.results import Product


class ReleaseRow(msgspec.Struct, frozen=True, array_like=True):
    """Product, range and size in bytes of a stored result; a row of the table "place"."""

    product: Product
    start: int
    stop: int
    size: int = 0


class Line(msgspec.Struct, array_like=True):
    """The watermark of one product; a row of the table "line"."""

    product: Product
    watermark: int = 0


@dataclass(slots=True)
class ReleaseQueue:
    """The stored results of one product that are not released."""

    end: int
    """The index of the first gap."""
    stored: dict[int, tuple[int, TaskId]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    sent: dict[TaskId, float] = field(default_factory=dict)
    """When to send unanswered releases again, in the order in which they were sent last."""
    early: set[int] = field(default_factory=set)
    """First indexes of results that the sink has before all earlier ones: they are not sent again."""

    def overlapping(self, start: int, stop: int) -> TaskId | None:
        """Return a result that overlaps `[start, stop)`: the last one that begins before `stop`, if any."""
        before = bisect_left(self.starts, stop)
        end, task = self.stored[self.starts[before - 1]] if before else (0, None)
        return task if end > start else None

    def add(self, start: int, stop: int, task: TaskId) -> None:
        """Add a result."""
        self.stored[start] = (stop, task)
        insort(self.starts, start)
        while self.end in self.stored:
            self.end = self.stored[self.end][0]

    def note_sent(self, task: TaskId, again: float) -> None:
        """Note that a result was sent, and when to send it again."""
        self.sent.pop(task, None)
        self.sent[task] = again

    def answered(self, start: int, mark: int) -> Iterator[tuple[TaskId, int]]:
        """Note that the sink has the result that begins at `start`; yield what is released by that, and the new watermark.

        The sink answers in order: an earlier release without an answer was lost, and is due at once.
        """
        _, task = self.stored[start]
        self.early.add(start)
        if task in self.sent:
            for lost in [*takewhile(lambda one: one != task, self.sent), task]:
                del self.sent[lost]
        while mark in self.early:
            self.early.remove(mark)
            del self.starts[0]
            mark, done = self.stored.pop(mark)
            self.sent.pop(done, None)
            yield done, mark

    def under_way(self, now: Seconds) -> int:
        """Return how many releases have no answer yet."""
        return sum(again > now for again in self.sent.values())

    def due(self, mark: int, most: int, now: Seconds) -> Iterator[TaskId]:
        """Yield those among the first `most` in line that should be sent now."""
        for _ in range(most):
            if mark not in self.stored:
                return
            start, (mark, task) = mark, self.stored[mark]
            if start not in self.early and now >= self.sent.get(task, 0.0):
                yield task

    def check(self, mark: int, most: int) -> None:
        """Raise if an invariant is broken."""
        edges = [mark, *(edge for start in self.starts for edge in (start, self.stored[start][0]))]
        assert self.starts == sorted(self.stored), "results and their order differ"
        assert edges == sorted(edges), f"ranges overlap or lie below the watermark: {edges}"
        assert len(self.sent) <= most, "more releases under way than the credit allows"
        assert self.end >= mark, "the first gap lies below the watermark"
        assert self.end not in self.stored, "the first gap is none"
