"""Verdicts that the distributor has not confirmed, in pages: one row of the spool holds up to fifteen of them.

Theory: a row for each verdict would cost two more writes for every task, and verdicts come and are confirmed together anyway. The
newest page is written again with each verdict that is added, which costs one write for all verdicts of one batch. A page is
deleted when the newest verdict of each task in it was confirmed. So a restart may find verdicts that were confirmed before: they
are reported to the distributor once more, which changes nothing.

No clock. Invariant: each verdict is in the last page that is noted for its task, and those pages are in the spool.
"""

import itertools
from dataclasses import dataclass, field

import msgspec

from beamtide.errors import Broken
from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.base import TaskId
from beamtide.messages.tasks import Closed

TABLE = "closed"
FULL = 15
"""Verdicts of one page: a msgpack array of up to 15 items has a header of one byte, so a page is a header and its verdicts."""
ARRAY = 0x90
LONG = 4096
"""A page is also full after so many bytes: reasons may be long."""
REPORT = 1000
"""Verdicts in one report."""
LARGEST_REPORT = 512 << 10
"""Bytes of one report: the distributor takes messages of 1 MiB at most."""
WIDEST = 4
"""Bytes of a character."""
_encode = msgspec.msgpack.Encoder().encode
verdicts_of = msgspec.msgpack.Decoder(tuple[Closed, ...]).decode
"""Read a page back."""


@dataclass(slots=True)
class VerdictsToDistributor:
    """The verdicts of one buffer."""

    shelf: Shelf
    _verdicts: dict[TaskId, Closed] = field(default_factory=dict)
    _pages: dict[TaskId, tuple[int, ...]] = field(default_factory=dict)
    _left: dict[int, int] = field(default_factory=dict)
    """How many verdicts of a page are not confirmed."""
    _page: int = 0
    _body: bytes = b""
    _count: int = FULL

    def __post_init__(self) -> None:
        for key, body in self.shelf.rows(TABLE):
            if not key.isdigit():
                raise Broken(
                    f"the spool has a verdict of an earlier version, {key}: let that version end its scans before the update"
                )
            self._page = int(key)
            for verdict in verdicts_of(body):
                self._enter(verdict)

    def add(self, verdict: Closed) -> list[Effect]:
        """Add a verdict; it replaces that of an earlier generation."""
        if self._count == FULL or len(self._body) > LONG:
            self._page, self._body, self._count = self._page + 1, b"", 0
        self._enter(verdict)
        self._body += _encode(verdict)
        self._count += 1
        return [Keep(TABLE, key_of(self._page), (ARRAY | self._count).to_bytes() + self._body)]

    def confirm(self, task: TaskId, generation: int) -> list[Effect]:
        """Drop a verdict that the distributor has on its disk, unless that is of another generation."""
        verdict = self._verdicts.get(task)
        if verdict is None or verdict.generation != generation:
            return []
        del self._verdicts[task]
        return [effect for page in self._pages.pop(task) for effect in self._leave(page)]

    def report(self) -> tuple[Closed, ...]:
        """Return verdicts to report, few enough for one message."""
        portion: list[Closed] = []
        size = 0
        for verdict in itertools.islice(self._verdicts.values(), REPORT):
            size += len(verdict.task) + len(verdict.reason) * WIDEST
            if portion and size > LARGEST_REPORT:
                break
            portion.append(verdict)
        return tuple(portion)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert self._verdicts.keys() == self._pages.keys(), "a verdict is in no page"
        for task, verdict in self._verdicts.items():
            page = verdicts_of(self.shelf.read(TABLE, key_of(self._pages[task][-1])))
            assert verdict in page, f"{task} is not in its page"

    def __len__(self) -> int:
        return len(self._verdicts)

    def _enter(self, verdict: Closed) -> None:
        task, page = verdict.task, self._page
        self._verdicts[task], self._pages[task] = verdict, (*self._pages.get(task, ()), page)
        self._left[page] = self._left.get(page, 0) + 1

    def _leave(self, page: int) -> list[Effect]:
        """Remove a verdict from a page; after the last one the page is deleted and gets no new verdicts."""
        self._left[page] -= 1
        if self._left[page]:
            return []
        del self._left[page]
        if page == self._page:
            self._count = FULL
        return [Forget(TABLE, key_of(page))]


def key_of(page: int) -> str:
    """Return the key of a page's row; pages are read in the order of these keys."""
    return f"{page:012d}"
