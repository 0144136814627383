"""How many bytes of answers are lent to ZeroMQ, until their peers have taken them.

Theory: ZeroMQ limits what is under way to one peer in messages, not in bytes, and not over all peers together: a few viewers that
ask and never read would fill the memory of a service. So each large part of an answer is tracked until ZeroMQ gives it back. Who
has not read what he was lent is lent more only while that is little, and while all together have little. Who has read everything
is always lent one answer, so that the deaf take nothing from him: beyond the budget each of them costs one answer. Only answers
are counted: what a service sends of its own accord has its credit.

No clock. Invariant: beyond `most`, nobody is lent a second answer.
"""

from collections import deque
from collections.abc import Iterable

import zmq

PER_PEER = 4
"""One peer is lent more than one answer only up to this part of all."""
Loan = tuple[zmq.MessageTracker, int]


class UnreadAnswers:
    """What is lent to whom; `most` bytes at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loans: dict[bytes, deque[Loan]] = {}

    def refusal(self, peer: bytes, size: int) -> str:
        """Return why a peer cannot be lent so many bytes now; "" if it can."""
        total = sum(map(self._under_way, list(self._loans)))  # and whoever is gone is forgotten
        mine = self._under_way(peer)
        if not mine:
            return ""
        if mine + size <= self._most // PER_PEER and total + size <= self._most:
            return ""
        return f"{mine >> 20} MiB of answers are on their way to you, and you have not read them"

    def note(self, peer: bytes, loans: Iterable[Loan]) -> None:
        """Take it that a peer was lent some parts."""
        self._loans.setdefault(peer, deque()).extend(loans)

    def _under_way(self, peer: bytes) -> int:
        """Return how many bytes a peer has not taken; it takes them in the order in which they were sent."""
        loans = self._loans.get(peer)
        while loans and loans[0][0].done:
            loans.popleft()
        if not loans:
            self._loans.pop(peer, None)
            return 0
        return sum(size for _, size in loans)
