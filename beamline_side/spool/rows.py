"""The rows of a spool in its SQLite file: read by table and key, written in whole batches.

Theory: a batch is one transaction; when it is written it is synced (durability "full"), and then the mark says so. A row carries
a checksum over its table, key and body that is verified when it is read. A row either holds its body or, with the name of a
segment in its last column, the handle of a payload. A long log is moved into the database between two batches; on a full disk
that waits.

No clock. Invariant: a batch is in the database as a whole, or not at all.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator

import apsw
import msgspec

from beamline_side.spool import connection as database
from beamline_side.spool.connection import checksum_of, handle_of
from beamline_side.spool.mark import Mark
from beamline_side.spool.segments import ADVICE, name_of
from beamtide.errors import Broken
from beamtide.messages.base import Handle

Body = bytes | Handle
SMALLEST = 512
"""Bytes of SQLite's smallest page: SQLite treats a shorter file as a new one."""
KEEP = "INSERT OR REPLACE INTO rows VALUES(?, ?, ?, ?, ?)"
FORGET = "DELETE FROM rows WHERE tbl=? AND key=?"
READ = "SELECT body, sum, segment FROM rows WHERE tbl=? AND key=?"
ALL = "SELECT key, body, sum, segment FROM rows WHERE tbl=? ORDER BY key"
HEAVY = "SELECT DISTINCT tbl FROM rows WHERE segment IS NOT NULL"
_encode = msgspec.msgpack.Encoder().encode


class Rows:
    """The database of one spool, or one in memory for the path ":memory:"."""

    def __init__(self, path: pathlib.Path, *, synced: bool) -> None:
        self._path, self._log, self._frames = path, pathlib.Path(f"{path}-wal"), 0
        self._in_memory, beside = str(path) == ":memory:", path.with_suffix(".mark")
        if beside.exists() and not (path.exists() and path.stat().st_size >= SMALLEST):
            what = f"{path} is missing or empty, and {beside} shows that it was not"
            raise Broken(f"{what}. Restore it from a backup, or remove the files beside it to start empty.")
        self.connection = database.connect(str(path), synced=synced)
        self._mark = None if self._in_memory else Mark(beside)
        if self._mark is not None:
            self.connection.set_wal_hook(self._count_frames)

    def find(self, table: str, key: str) -> Body | None:
        """Return the body of a row, or where its payload lies; None if there is no such row."""
        row = self.connection.execute(READ, (table, key)).fetchone()
        return None if row is None else self._verified(table, key, row)

    def all(self, table: str) -> Iterator[tuple[str, Body]]:
        """Yield the rows of a table, ordered by key."""
        for key, *row in self.connection.execute(ALL, (table,)):
            yield key, self._verified(table, key, row)

    def named(self) -> list[tuple[Handle, int]]:
        """Return for each segment that rows name the last payload in it, and the number of rows."""
        return list(database.named(self.connection))

    def heavy_tables(self) -> set[str]:
        """Return the tables that have rows with payloads."""
        return {table for (table,) in self.connection.execute(HEAVY)}

    def write(self, batch: Iterable[tuple[tuple[str, str], Body | None]]) -> None:
        """Write a batch; None deletes a row. `apsw.FullError`: there was no room, and nothing was written."""
        kept: list[tuple[str, str, bytes, bytes, str | None]] = []
        forgotten: list[tuple[str, str]] = []
        for (table, key), body in batch:
            if body is None:
                forgotten.append((table, key))
            elif isinstance(body, bytes):
                kept.append((table, key, body, checksum_of(table, key, body), None))
            else:
                row = _encode(body)
                kept.append((table, key, row, checksum_of(table, key, row), name_of(body)))
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self.connection.executemany(KEEP, kept)
            self.connection.executemany(FORGET, forgotten)
            self.connection.execute("COMMIT")
        except apsw.FullError:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        if self._mark is not None:
            self._mark.committed(self._log, self._frames)

    def tidy(self, at: int = 0) -> None:
        """Move the log into the database if it has `at` pages; then SQLite starts the log file again from its beginning."""
        if self._frames < at:
            return
        with contextlib.suppress(apsw.FullError):  # then the log grows
            frames, moved = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if frames == moved and self._mark is not None:
                self._mark.log_begins_anew()
                self._frames = 0

    def close(self, *, broken: bool) -> None:
        """Close the file. After a failure the log stays as it is, and its mark too."""
        if self._mark is not None:
            broken = broken or not self._mark.clear()
            self._mark.close()
        if broken:
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        with contextlib.suppress(apsw.Error):  # a full disk may refuse even this; everything promised is in the log
            self.connection.close()

    def _count_frames(self, _: apsw.Connection, __: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    def _verified(self, table: str, key: str, row: tuple[bytes, bytes, str | None] | list[bytes]) -> Body:
        body, checksum, segment = row
        if checksum_of(table, key, body) != checksum:
            raise Broken(f"{self._path}: row {key!r} of table {table!r} is damaged, its checksum does not fit. {ADVICE}")
        return body if segment is None else handle_of(body)
