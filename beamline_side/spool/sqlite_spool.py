"""The spool: rows of one service that survive a crash, in one SQLite file, and large bodies in segments beside it.

Theory: one connection owns the file, and there is one commit for everything the pump had waiting. Rows wait in memory until then,
so a batch costs two statements, and a batch that found no room can be written again from the reserve. A body of `HEAVY` bytes or
more goes to a segment at once, and its row holds a handle. Order of a commit: segments are synced, rows are committed and synced,
the mark is written, segments that no row names any more are deleted. A failed sync or write ends the process (`Broken`): nobody
knows what the disk holds then, so a restart reads it. `relaxed` syncs only checkpoints: it survives SIGKILL, and loses the last
seconds in a power cut.

Clock policy: no clock. Invariants: at most one process has the file open; a row that is returned is the row that was kept.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Literal

import apsw

from beamline_side.spool.connection import lock
from beamline_side.spool.reserve import USUAL, Reserve
from beamline_side.spool.rows import Body, Rows
from beamline_side.spool.segments import ADVICE, Segments, is_full
from beamtide.errors import Broken
from beamtide.machine import Parts
from beamtide.messages.base import Handle

Durability = Literal["full", "relaxed"]
HEAVY = 64 << 10
"""A body of so many bytes goes to a segment: SQLite would write it twice and copy it three times."""
GENEROUS, FRUGAL = 1000, 50
"""Pages in the log after which it goes into the database; few while only the reserve is left."""
DISK = (apsw.Error, OSError)


class Spool:
    """A `beamtide.pump.Store` in one file, or in memory without a path."""

    def __init__(self, path: pathlib.Path | str | None, durability: Durability = "full", reserve: int = USUAL) -> None:
        self._path, self._durability = pathlib.Path(path or ":memory:"), durability
        self._pending: dict[tuple[str, str], Body | None] = {}
        self._gone: list[Handle] = []
        self._heavy: set[str] = set()
        """Tables that have, or had, rows with payloads."""
        self._segments: Segments | None = None
        self._reserve: Reserve | None = None
        self._broken = False
        self._lock = -1 if path is None else lock(self._path)
        try:
            self._rows = Rows(self._path, synced=durability == "full")
            if path is not None:
                self._reserve = Reserve(self._path.with_suffix(".reserve"), reserve)
                self._segments = Segments(self._path, self._rows.named(), synced=durability == "full")
                self._heavy = self._rows.heavy_tables()
        except DISK as error:
            self._release()
            raise self._trouble(error) from error
        except Broken:
            self._release()
            raise

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Insert or replace a row in the open transaction."""
        if not isinstance(body, bytes) or len(body) >= HEAVY:
            body = self._placed(body)
            if isinstance(body, Handle):
                self._heavy.add(table)
        if table in self._heavy:
            self._leave(table, key)
        self._pending[table, key] = body

    def forget(self, table: str, key: str) -> None:
        """Delete a row in the open transaction, if it exists."""
        if table in self._heavy:
            self._leave(table, key)
        self._pending[table, key] = None

    def read(self, table: str, key: str) -> bytes:
        """Return one row; KeyError if there is none."""
        body = self._find(table, key)
        if body is None:
            raise KeyError(key)
        return self._whole(body)

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Return all rows of a table as (key, body), ordered by key; only at the start, before anything waits for a commit."""
        assert not self._pending, "rows are asked for in the middle of a batch"
        try:
            for key, body in self._rows.all(table):
                yield key, self._whole(body)
        except DISK as error:
            raise self._trouble(error) from error

    def handle(self, table: str, key: str) -> Handle | None:
        """Return where the body of a row lies; None if it lies in the database itself."""
        body = self._find(table, key)
        return body if isinstance(body, Handle) else None

    def borrow(self, handle: Handle) -> bytes:
        """Return the payload that another component of this host has stored; KeyError if it cannot be read."""
        if self._segments is None:
            raise KeyError(handle.spool)
        return self._segments.borrow(handle)

    def room(self, size: int) -> str:
        """Return why `size` bytes of new work cannot be kept now; "" if they can."""
        return "" if self._reserve is None else self._reserve.room(size)

    def progress(self) -> dict[str, float]:
        """Return numbers that every status shows: none while all is well."""
        return {"relaxed": 1.0} if self._durability == "relaxed" else {}

    def commit(self) -> None:
        """Make the open transaction durable; nothing to do without one."""
        if not self._pending:
            return
        try:
            if self._segments is not None:
                self._segments.sync()
            self._write()
            self._pending.clear()
            if self._segments is not None and self._gone:
                self._segments.release(self._gone)
                self._gone.clear()
            self._rows.tidy(at=FRUGAL if self._reserve is not None and self._reserve.spent else GENEROUS)
        except DISK as error:
            raise self._trouble(error) from error

    def close(self) -> None:
        """Close the files; a transaction that was not committed is rolled back."""
        if self._segments is not None:
            self._segments.close()
        self._rows.close(broken=self._broken)
        self._release()

    def _write(self) -> None:
        """Write the batch; if there is no room, first empty the log, then release the reserve."""
        with contextlib.suppress(apsw.FullError):
            return self._rows.write(self._pending.items())
        self._rows.tidy()
        with contextlib.suppress(apsw.FullError):
            return self._rows.write(self._pending.items())
        self._spend()
        self._rows.tidy()
        return self._rows.write(self._pending.items())

    def _spend(self) -> bool:
        return self._reserve is not None and self._reserve.spend()

    def _placed(self, body: bytes | Parts | Handle) -> Body:
        """Return the row for a body; a large body is written into a segment."""
        if isinstance(body, Handle):
            assert self._segments is not None, "a spool in memory cannot keep a payload that is on disk"
            try:
                self._segments.adopt(body)
            except OSError as error:
                raise self._trouble(error) from error
            return body
        parts = (body,) if isinstance(body, bytes) else body
        if self._segments is None or sum(map(len, parts)) < HEAVY:
            return b"".join(parts)
        try:
            return self._append(self._segments, parts)
        except OSError as error:
            raise self._trouble(error) from error

    def _append(self, segments: Segments, parts: Parts) -> Handle:
        try:
            return segments.append(parts)
        except OSError as error:
            if not is_full(error) or not self._spend():
                raise
            return segments.append(parts)

    def _leave(self, table: str, key: str) -> None:
        """Note the old payload of a row: it is not needed once the batch is committed."""
        if isinstance(before := self._find(table, key), Handle):
            self._gone.append(before)

    def _find(self, table: str, key: str) -> Body | None:
        if (table, key) in self._pending:
            return self._pending[table, key]
        try:
            return self._rows.find(table, key)
        except apsw.Error as error:
            raise self._trouble(error) from error

    def _whole(self, body: Body) -> bytes:
        if isinstance(body, bytes):
            return body
        assert self._segments is not None
        try:
            return self._segments.read(body)
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: apsw.Error | OSError) -> Broken:
        """Return the error of the disk as one sentence, with which the process ends."""
        self._broken = True
        if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and is_full(error)):
            advice = "Make room on its disk; everything acknowledged is on it, and a restart continues from there."
        elif isinstance(error, apsw.CorruptError | apsw.NotADBError):
            advice = ADVICE
        else:
            advice = "Check the disk; everything acknowledged is on it, and a restart continues from there."
        return Broken(f"{self._path}: {error}. {advice}")

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
