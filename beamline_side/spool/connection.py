"""Opens a spool's database, and verifies it before anything in it is used.

Theory: SQLite in write-ahead mode, one connection that owns the file. At every start, before the first write, it is checked that
the log holds all that its mark promises, that the pages of the database are consistent, and that every row fits its checksum.
Until then nothing is changed: a log that was cut stays as it is, for `beamtide spool salvage`.
Source: https://www.sqlite.org/wal.html, https://www.sqlite.org/pragma.html#pragma_quick_check; ADR 0010.

No clock.
"""

import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator

import apsw
import msgspec
import xxhash

from beamline_side.spool import mark
from beamline_side.spool.segments import ADVICE
from beamtide.errors import BadInput, Broken
from beamtide.messages.base import Handle

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rows(tbl TEXT, key TEXT, body BLOB, sum BLOB, segment TEXT, PRIMARY KEY(tbl, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS named ON rows(segment) WHERE segment IS NOT NULL",
)
PRAGMAS = (
    "locking_mode=EXCLUSIVE",
    "page_size=16384",
    "cache_size=-65536",
    "journal_mode=WAL",
    "journal_size_limit=67108864",
    "cell_size_check=ON",
    "trusted_schema=OFF",
)
"""Pages of 16 KiB, and a cache of 64 MiB. A spool that was made with other pages keeps them."""
LOCKED = "the spool {path} is in use by another process: stop the other Beamtide that uses this state folder."


def untouched(path: str) -> apsw.Connection:
    """Open a database without changing it; closing it leaves its log unchanged, too."""
    connection = apsw.Connection(path)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for pragma in PRAGMAS:
            list(connection.execute(f"PRAGMA {pragma}"))
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: str, *, synced: bool) -> apsw.Connection:
    """Open a database that is verified, or new."""
    connection = untouched(path)
    try:
        list(connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}"))
        if path != ":memory:":
            verify(connection, pathlib.Path(path))
        for statement in SCHEMA:
            connection.execute(statement)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        connection.close()
        raise
    return connection


def verify(connection: apsw.Connection, path: pathlib.Path) -> None:
    """Raise Broken, saying where, if the log, the pages or the rows are damaged."""
    found = next(problems(connection, path), "")
    if found:
        raise Broken(f"{found}. {ADVICE}")


def problems(connection: apsw.Connection, path: pathlib.Path) -> Iterator[str]:
    """Yield what is wrong with a database, one sentence without a full stop each."""
    if lost := lost_log(connection, path):
        yield lost
    if not list(connection.execute("SELECT 1 FROM sqlite_schema")):
        return
    for (said,) in connection.execute("PRAGMA quick_check(5)"):
        if said != "ok":
            yield f"{path}: {' '.join(str(said).split())}"
    try:
        for table, key, body, checksum in connection.execute("SELECT tbl, key, body, sum FROM rows"):
            if checksum_of(table, key, body) != checksum:
                yield f"{path}: row {key!r} of table {table!r} is damaged, its checksum does not fit"
    except UnicodeDecodeError as error:
        yield f"{path}: the name of a row is damaged, it is no text: {error.object!r}"


def named(connection: apsw.Connection) -> Iterator[tuple[Handle, int]]:
    """Yield for each segment that rows name the last payload in it, and the number of rows."""
    last: dict[str, Handle] = {}
    rows: dict[str, int] = {}
    for body, segment in connection.execute("SELECT body, segment FROM rows WHERE segment IS NOT NULL"):
        handle = handle_of(body)
        rows[segment] = rows.get(segment, 0) + 1
        if segment not in last or handle.offset > last[segment].offset:
            last[segment] = handle
    yield from ((handle, rows[segment]) for segment, handle in last.items())


def lost_log(connection: apsw.Connection, path: pathlib.Path) -> str:
    """Say which commits the log has lost, or ""."""
    list(connection.execute("SELECT 1 FROM sqlite_schema"))  # SQLite reads its log with the first statement
    readable, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    page = connection.pragma("page_size")
    return mark.missing(path.with_suffix(".mark"), pathlib.Path(f"{path}-wal"), max(0, readable), page)


handle_of = msgspec.msgpack.Decoder(Handle).decode
"""Read the body of a row that names a payload."""


def checksum_of(table: str, key: str, body: bytes) -> bytes:
    """Return what a row's column `sum` must hold."""
    return xxhash.xxh3_64_digest(b"%b\0%b\0%b" % (table.encode(), key.encode(), body))


def lock(path: pathlib.Path) -> int:
    """Lock the spool for this process, and make its folder readable for this user only; return the lock to close."""
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
        raise BadInput(LOCKED.format(path=path)) from error
    return descriptor
