"""Requests that are answered later: their peer, message id and deadline.

One request per key; a newer one replaces the older one. Clock policy: deadlines are times of the caller's monotonic clock;
`expired` returns the requests whose deadline has passed. Most requests are answered in the batch in which they came, so deadlines
are sorted only when the next one is needed. Invariant: every request waits in one place.
"""

import heapq
import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from beamtide.machine import Heard, Peer, Unreachable
from beamtide.messages.base import Message

K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound=Message)
LONGEST_WAIT = 60.0
ROOM = 1000
"""So many deadlines of answered requests may remain, and four for each waiting request."""


class Asker(NamedTuple, Generic[M]):
    """A request, and where its answer goes."""

    peer: Peer
    id: int
    message: M
    number: int


@dataclass(slots=True)
class PendingRequests(Generic[K, M]):
    """The waiting requests."""

    _askers: dict[K, Asker[M]] = field(default_factory=dict)
    _deadlines: list[tuple[float, int, K]] = field(default_factory=list)
    _fresh: list[tuple[float, int, K]] = field(default_factory=list)
    """Deadlines that are not sorted yet."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, key: K, event: Heard, message: M, now: float, wait: float) -> float:
        """Let a request wait for up to `wait` seconds; it becomes the newest. Return when it expires."""
        number = next(self._numbers)
        self._askers.pop(key, None)
        self._askers[key] = Asker(event.peer, event.id, message, number)
        deadline = now + max(0.0, min(wait, LONGEST_WAIT))  # in this order NaN becomes 0
        self._fresh.append((deadline, number, key))
        if len(self._fresh) > 4 * len(self._askers) + ROOM:
            self._order()
        return deadline

    def _waits(self, number: int, key: K) -> bool:
        asker = self._askers.get(key)
        return asker is not None and asker.number == number

    def _order(self) -> None:
        """Sort the deadlines of the requests that still wait."""
        if not self._askers:
            self._fresh.clear()
            self._deadlines.clear()
            return
        for entry in self._fresh:
            if self._waits(*entry[1:]):
                heapq.heappush(self._deadlines, entry)
        self._fresh.clear()
        if len(self._deadlines) > 4 * len(self._askers) + ROOM:
            self._clear_up()

    def _clear_up(self) -> None:
        """Drop the deadlines of requests that were answered or replaced."""
        self._deadlines = [entry for entry in self._deadlines if self._waits(*entry[1:])]
        heapq.heapify(self._deadlines)

    def take(self, key: K) -> Asker[M] | None:
        """Take a request out, to answer it."""
        return self._askers.pop(key, None)

    def newest(self) -> tuple[K, Asker[M]]:
        """Take the newest request out."""
        return self._askers.popitem()

    def expired(self, now: float) -> list[tuple[K, Asker[M]]]:
        """Take out the requests whose deadline has passed."""
        over = []
        self._order()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number, key = heapq.heappop(self._deadlines)
            if self._waits(number, key):
                over.append((key, self._askers.pop(key)))
        return over

    def forget(self, gone: Unreachable) -> None:
        """Drop the requests of a peer that is gone."""
        for key in [key for key, asker in self._askers.items() if asker.peer == gone.peer]:
            del self._askers[key]

    def wake(self) -> float | None:
        """Return when a request may expire next."""
        self._order()
        return self._deadlines[0][0] if self._deadlines else None

    def items(self) -> list[tuple[K, Asker[M]]]:
        """Return the waiting requests, oldest first."""
        return list(self._askers.items())

    def __len__(self) -> int:
        return len(self._askers)
