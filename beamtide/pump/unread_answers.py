"""How many bytes of answers each peer has not read yet, and whether it may get more.

Theory: ZeroMQ limits the messages under way to one peer, but neither their bytes nor the sum over all peers: a few viewers that
ask and never read would fill the memory of a service. So each large part of an answer is tracked until ZeroMQ has sent it. A peer
with unread answers gets another one only while its own unread bytes, and those of all peers together, are few. A peer with
nothing unread may always get one answer, so slow peers cannot block it; beyond the budget, each peer costs one answer at most.
Only answers are counted: messages that a service sends on its own are limited by credit.

No clock. Invariant: beyond `most` bytes, no peer gets a second answer.
"""

from collections import deque
from collections.abc import Iterable

import zmq

PER_PEER = 4
"""A peer gets a second answer only while its unread bytes stay below this fraction (1/4) of the budget."""
Unread = tuple[zmq.MessageTracker, int]


class UnreadAnswers:
    """Unread answers by peer; `most` bytes at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._unread: dict[bytes, deque[Unread]] = {}

    def refusal(self, peer: bytes, size: int) -> str:
        """Return why a peer cannot get an answer of so many bytes now; "" if it can."""
        total = sum(map(self._under_way, list(self._unread)))  # this also forgets peers that are gone
        mine = self._under_way(peer)
        if not mine:
            return ""
        if mine + size <= self._most // PER_PEER and total + size <= self._most:
            return ""
        return f"{mine >> 20} MiB of answers are on their way to you, and you have not read them"

    def note(self, peer: bytes, parts: Iterable[Unread]) -> None:
        """Note the parts of an answer that was sent to a peer."""
        self._unread.setdefault(peer, deque()).extend(parts)

    def _under_way(self, peer: bytes) -> int:
        """Return how many bytes a peer has not read; it reads them in the order in which they were sent."""
        unread = self._unread.get(peer)
        while unread and unread[0][0].done:
            unread.popleft()
        if not unread:
            self._unread.pop(peer, None)
            return 0
        return sum(size for _, size in unread)
