"""Room for results: how many bytes a sorter lets in, into its memory and onto its disk.

Theory: a worker with a large result asks first (`RoomRequest`), so that a thousand that finish at once fill no memory: what is
promised at a time is at most `memory`, and a promise lapses after `PROMISE` seconds. On the disk wait results that the sink has
not taken. Up to `SOFT` of `backlog` everything is stored; from there on only what is next in line, so that results behind a gap
do not take its place; from `HARD` on only what can be released at once. So the row goes on whatever happens, and a worker that
is refused keeps its lease and asks again: the queue grows at the distributor, and from there the source slows down.

Clock policy: `now` is the caller's monotonic clock. Invariants: `waiting` is the sum of what is stored; what a peer was
promised is counted once.
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
    """Size of the result that came last: the next will be like it."""
    _sizes: dict[TaskId, int] = field(default_factory=dict)
    _promised: dict[Peer, tuple[int, float]] = field(default_factory=dict)

    def ask(self, peer: Peer, size: int, now: Seconds) -> str:
        """Promise room in memory for a message that will come; or return why it has to wait."""
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
        """Say that results wait in numbers, and leave no room for another like the last."""
        full = self.waiting > 0 and self.waiting + self.last > SOFT * self.backlog
        return f"{self.waiting >> 20} MiB of results wait for the sink, and workers wait with more" if full else ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert self.waiting == sum(self._sizes.values()) >= 0, "what waits is miscounted"
