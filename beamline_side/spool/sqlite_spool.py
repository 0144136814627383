"""The spool: rows of one service that survive a crash, in one SQLite file.

Theory: SQLite in write-ahead mode with `synchronous=FULL`, one connection that owns the file, one commit for everything the
pump had waiting (ADR 0001). A transaction opens with the first write, and a commit without one costs nothing. Each row
carries a checksum over its table, key and body that is verified when it is read: a disk that flips a bit is noticed, not
believed. When the disk is full or fails, nothing of the batch was acknowledged: `Broken` ends the process, and a restart
replays from the last commit.

Clock policy: no clock. Invariants: at most one process has the file open; a row that is returned is the row that was kept.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from typing import NoReturn, Self

import xxhash

from beamtide.errors import BadInput, Broken

SCHEMA = "CREATE TABLE IF NOT EXISTS rows(tbl TEXT, key TEXT, body BLOB, sum BLOB, PRIMARY KEY(tbl, key)) WITHOUT ROWID"
PRAGMAS = (
    "page_size=16384",
    "cache_size=-65536",
    "locking_mode=EXCLUSIVE",
    "journal_mode=WAL",
    "synchronous=FULL",
    "journal_size_limit=67108864",
    "wal_autocheckpoint=1000",
    "cell_size_check=ON",
    "trusted_schema=OFF",
)
"""Pages of 16 KiB, and room for 64 MiB of them: a row of 1 MiB costs half of what it does with SQLite's defaults, small rows
cost the same. A spool that was made with other pages keeps them."""
KEEP = "INSERT OR REPLACE INTO rows VALUES(?, ?, ?, ?)"
FORGET = "DELETE FROM rows WHERE tbl=? AND key=?"
HEAVY = 4 << 20
"""So many bytes of rows are collected in memory before SQLite gets them: many rows at once cost a third of one by one."""


class Spool:
    """A `beamtide.pump.Store` in one file, or in memory without a path."""

    def __init__(self, path: pathlib.Path | str | None) -> None:
        self._path = pathlib.Path(path or ":memory:")
        self._open = False
        self._pending: dict[tuple[str, str], bytes | None] = {}
        self._weight = 0
        self._lock = -1 if path is None else _lock(self._path)
        try:
            self._connection = _connect(str(self._path))
        except sqlite3.Error as error:
            self._release()
            self._broken(error)

    @classmethod
    def nowhere(cls) -> Self:
        """Return a spool in memory, for a service that promises no durability."""
        return cls(None)

    def keep(self, table: str, key: str, body: bytes) -> None:
        """Insert or replace a row in the open transaction."""
        self._pending[table, key] = body
        self._weight += len(body)
        if self._weight > HEAVY:
            self._write()

    def forget(self, table: str, key: str) -> None:
        """Delete a row in the open transaction; a row that is not there is fine."""
        self._pending[table, key] = None

    def read(self, table: str, key: str) -> bytes:
        """Return one row; KeyError if there is none."""
        if (table, key) in self._pending:
            row = self._pending[table, key]
            if row is None:
                raise KeyError(key)
            return row
        try:
            found = self._connection.execute("SELECT body, sum FROM rows WHERE tbl=? AND key=?", (table, key)).fetchone()
        except sqlite3.Error as error:
            self._broken(error)
        if found is None:
            raise KeyError(key)
        return self._verified(table, key, found)

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Return all rows of a table as (key, body), ordered by key."""
        self._write()
        try:
            for key, *row in self._connection.execute("SELECT key, body, sum FROM rows WHERE tbl=? ORDER BY key", (table,)):
                yield key, self._verified(table, key, row)
        except sqlite3.Error as error:
            self._broken(error)

    def commit(self) -> None:
        """Make the open transaction durable; nothing to do without one."""
        self._write()
        if self._open:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._broken(error)
            self._open = False

    def close(self) -> None:
        """Close the file; a transaction that was not committed is rolled back."""
        with contextlib.suppress(
            sqlite3.Error
        ):  # a disk that is full may refuse even this, and everything promised is in the log
            self._connection.close()
        self._release()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self) -> None:
        """Hand what is pending over to SQLite, in two statements."""
        if not self._pending:
            return
        kept = [
            (table, key, body, _checksum(table, key, body)) for (table, key), body in self._pending.items() if body is not None
        ]
        forgotten = [row for row, body in self._pending.items() if body is None]
        try:
            if not self._open:
                self._connection.execute("BEGIN IMMEDIATE")
                self._open = True
            self._connection.executemany(KEEP, kept)
            self._connection.executemany(FORGET, forgotten)
        except sqlite3.Error as error:
            self._broken(error)
        self._pending.clear()
        self._weight = 0

    def _verified(self, table: str, key: str, row: tuple[bytes, bytes] | list[bytes]) -> bytes:
        body, checksum = row
        if _checksum(table, key, body) != checksum:
            raise Broken(
                f"{self._path}: row {key!r} of table {table!r} is damaged, its checksum does not fit. "
                "Check the disk, then restore the file from a copy or move it away to start empty."
            )
        return body

    def _broken(self, error: sqlite3.Error) -> NoReturn:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_FULL"):
            advice = "Make room on its disk; nothing was acknowledged that is not on it, and a restart goes on from there."
        else:
            advice = "Check the disk and the file; nothing was acknowledged that is not on it."
        raise Broken(f"{self._path}: {error}. {advice}") from error


def _checksum(table: str, key: str, body: bytes) -> bytes:
    digest = xxhash.xxh3_64(f"{table}\0{key}\0".encode())
    digest.update(body)
    return digest.digest()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute(SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _lock(path: pathlib.Path) -> int:
    """Take the spool for this process, and make its folder readable for us alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Broken(f"cannot open the spool {path}: {error.strerror}. Make room on its disk.") from error
        raise BadInput(f"cannot open the spool {path}: {error.strerror}. Check the folder `state` of the site file.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise BadInput(
            f"the spool {path} is in use by another process: stop the other Beamtide that uses this state folder."
        ) from error
    return descriptor
