"""The journal of one pipeline: entries 1, 2, 3 … that its buffer reads with a cursor.

Theory: the entries `passed < seq <= last` are rows of the spool, read when they are asked for; memory holds two numbers, and the
few cancellations among the entries, which are announced before their turn. No clock.
"""

from dataclasses import dataclass, field

import msgspec

from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.base import PipelineName
from beamtide.messages.tasks import Cancelled, Entry, Pulled, Task

LARGEST_ANSWER = 640 << 10
"""Bytes of entries in one answer: a buffer takes messages of 1 MiB at most."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


@dataclass(slots=True)
class TaskLog:
    """The entries that the buffer has not confirmed."""

    pipeline: PipelineName
    shelf: Shelf
    passed: int = 0
    last: int = 0
    _ahead: dict[int, Entry] = field(default_factory=dict)
    _told: int = 0
    _fresh: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, body in self.shelf.rows("cursor"):
            if key == self.pipeline:
                self.passed, self.last = msgspec.msgpack.decode(body, type=tuple[int, int])
        for key, body in self.shelf.rows("ahead"):
            if key.startswith(f"{self.pipeline}/"):
                entry = _decode(body)
                self._ahead[entry.seq] = entry

    def append(self, event: Task | Cancelled) -> list[Effect]:
        """Append an entry."""
        self.last += 1
        task, cancelled = (event, None) if isinstance(event, Task) else (None, event)
        entry = Entry(seq=self.last, task=task, cancelled=cancelled)
        body = self._fresh[self.last] = _encode(entry)
        effects: list[Effect] = [Keep("journal", self._key(self.last), body), self._numbers()]
        if cancelled is not None:
            self._ahead[self.last] = entry
            effects.append(Keep("ahead", self._key(self.last), body))
        return effects

    def confirm(self, after: int) -> list[Effect]:
        """Delete what the buffer has on its disk; a cursor beyond our end means that our disk was lost: continue from there."""
        if after <= self.passed:
            return []
        effects: list[Effect] = []
        for seq in range(self.passed + 1, min(after, self.last) + 1):
            effects.append(Forget("journal", self._key(seq)))
            if self._ahead.pop(seq, None):
                effects.append(Forget("ahead", self._key(seq)))
        self.passed, self.last = after, max(self.last, after)
        return [*effects, self._numbers()]

    def has_news(self, credit: int) -> bool:
        """Whether there is something to answer a pull with."""
        return (credit > 0 and self.last > self.passed) or max(self._ahead, default=0) > self._told

    def answer(self, credit: int) -> Pulled:
        """Return the next entries, at most `credit` of them, and the cancellations to come."""
        entries: list[Entry] = []
        size = 0
        for seq in range(self.passed + 1, min(self.last, self.passed + max(0, credit)) + 1):
            body = self._fresh.get(seq) or self.shelf.read("journal", self._key(seq))
            size += len(body)
            if entries and size > LARGEST_ANSWER:
                break
            entries.append(_decode(body))
        self._told = max(self._ahead, default=0)
        return Pulled(pipeline=self.pipeline, entries=tuple(entries), ahead=tuple(self._ahead.values()))

    def written(self) -> None:
        """Note that the spool has all entries now."""
        self._fresh.clear()

    def __len__(self) -> int:
        return self.last - self.passed

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert 0 <= self.passed <= self.last, "the cursor is beyond the end"
        assert all(self.passed < seq <= self.last for seq in self._ahead), "a cancellation that is not in the journal"
        for seq in range(self.passed + 1, self.last + 1):
            self.shelf.read("journal", self._key(seq))

    def _key(self, seq: int) -> str:
        return f"{self.pipeline}/{seq:012d}"

    def _numbers(self) -> Keep:
        return Keep("cursor", self.pipeline, msgspec.msgpack.encode((self.passed, self.last)))
