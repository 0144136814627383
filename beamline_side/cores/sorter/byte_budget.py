"""The byte budget of a sorter: how much it accepts into its memory and onto its disk.

Theory: a worker with a large result asks first (`RoomRequest`), so that a thousand results that finish at once do not fill the
memory: at most `memory` bytes are promised at a time, and a promise ends after `PROMISE` seconds. On the disk wait results that
the sink has not taken. Up to `SOFT` of `backlog` every result is stored; above it only those next in index order, so that results
behind a gap do not take the room of the missing one; above `HARD` only what can be released at once. Results keep flowing in
index order even when the disk is full. A worker that is refused keeps its lease and asks again: the queue grows at the
distributor, and the source slows down.

Clock policy: `now` is the caller's monotonic clock. Invariants: `waiting` is the sum of what is stored; each promise to a peer is
counted once.
"""

from dataclasses import dataclass, field

from beamtide.machine import Peer
from beamtide.messages.base import Seconds, TaskId

SOFT, HARD = 0.8, 0.95
PROMISE = 60.0


@dataclass(slots=True)
class ByteBudget:
    """The budget of one sorter, in bytes."""

    memory: int = 512 << 20
    backlog: int = 64 << 30
    waiting: int = 0
    last: int = 0
    """Size of the last result: an estimate for the next."""
    _sizes: dict[TaskId, int] = field(default_factory=dict)
    _promised: dict[Peer, tuple[int, float]] = field(default_factory=dict)

    def ask(self, peer: Peer, size: int, now: Seconds) -> str:
        """Promise room in memory for a message that will come, or return why it has to wait."""
        self._promised = {who: one for who, one in self._promised.items() if one[1] > now and who != peer}
        promised = sum(one for one, _ in self._promised.values())
        if self._promised and promised + size > self.memory:
            return f"{len(self._promised)} results with {promised >> 20} MiB are on their way, as much as fits in memory"
        self._promised[peer] = (max(0, size), now + PROMISE)
        return ""

    def came(self, peer: Peer) -> None:
        """Note that a promise was used, or that its peer is gone."""
        self._promised.pop(peer, None)

    def refusal(self, size: int, *, next_in_line: bool, first: bool) -> str:
        """Return why a result of so many bytes cannot be stored now; "" if it can."""
        self.last = size or self.last
        share = 1.0 if first else HARD if next_in_line else SOFT
        if size == 0 or first or self.waiting + size <= share * self.backlog:
            return ""
        return f"{self.waiting >> 20} MiB of results wait for the sink, as much as budgets.backlog allows"

    def stored(self, task: TaskId, size: int) -> None:
        """Count a result that is stored."""
        self._sizes[task], self.last = size, size or self.last
        self.waiting += size

    def released(self, task: TaskId) -> None:
        """Count a result that the sink has."""
        self.waiting -= self._sizes.pop(task, 0)

    def why(self) -> str:
        """Say how much waits, if there is no room for another result like the last; else ""."""
        full = self.waiting > 0 and self.waiting + self.last > SOFT * self.backlog
        return f"{self.waiting >> 20} MiB of results wait for the sink, and workers wait with more" if full else ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert self.waiting == sum(self._sizes.values()) >= 0, "waiting bytes are miscounted"
