"""Shows, checks and salvages the spool of a service that does not run.

Theory: nothing here changes the spool; the log stays where it is, and undamaged rows are copied to a new file. Rows are read from
both ends towards the damage, so that one damaged page loses the rows of that page (and several damaged pages everything between
the first and the last). Every row and every payload that is copied fits its checksum.

No clock. Invariant: a salvaged spool passes `check`.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import apsw

from beamline_side.spool import connection as database
from beamline_side.spool.connection import checksum_of, handle_of
from beamline_side.spool.segments import Segments, folder_of
from beamline_side.spool.sqlite_spool import Spool
from beamtide.errors import BadInput, Broken

OnProgress: TypeAlias = Callable[[int], None]
"""Called from time to time with the number of rows read."""
OFTEN = 1000
Row: TypeAlias = tuple[str, str, bytes, bytes, str | None]
ENDS = ("ORDER BY tbl, key", "ORDER BY tbl DESC, key DESC")
TORN = "the rows of a damaged page"
TABLES = "SELECT tbl, count(*), sum(length(body)), count(segment) FROM rows GROUP BY tbl"


@dataclass(frozen=True, slots=True)
class SpoolTable:
    """One table of a spool: rows, their bytes in the database, and how many of them have a payload in a segment."""

    name: str
    rows: int
    bytes: int
    payloads: int


@dataclass(slots=True)
class Salvaged:
    """How much was salvaged, and what was lost, one sentence each."""

    rows: int = 0
    payloads: int = 0
    lost: list[str] = field(default_factory=list)


def show(path: pathlib.Path) -> tuple[list[SpoolTable], int, int]:
    """Return the tables, and how many segments hold how many bytes. BadInput: there is no such spool, or it is in use."""
    with _opened(path) as connection:
        tables = [SpoolTable(*row) for row in connection.execute(TABLES)]
    folder = folder_of(path)
    sizes = [one.stat().st_size for one in folder.iterdir()] if folder.is_dir() else []
    return tables, len(sizes), sum(sizes)


def check(path: pathlib.Path, on_progress: OnProgress) -> list[str]:
    """Return everything that is damaged, payloads too; one sentence each, without a full stop."""
    with _opened(path) as connection:
        try:
            found = list(database.problems(connection, path))
            segments = Segments(path, [], synced=False, reclaim=False)
            bodies = connection.execute("SELECT key, body FROM rows WHERE segment IS NOT NULL")
            for number, (key, body) in enumerate(bodies):
                try:
                    segments.read(handle_of(body))
                except (Broken, OSError, ValueError) as error:
                    found.append(f"{key}: {str(error).partition('. ')[0]}")
                if number % OFTEN == 0:
                    on_progress(number)
        except (apsw.Error, UnicodeDecodeError) as error:
            return [f"{path}: {error}"]
    return found


def salvage(path: pathlib.Path, to: pathlib.Path, on_progress: OnProgress) -> Salvaged:
    """Copy the undamaged rows of a spool to a new one. BadInput: the new file exists already."""
    if to.exists():
        raise BadInput(f"{to} exists already: choose another name with --to")
    done, segments = Salvaged(), Segments(path, [], synced=False, reclaim=False)
    new = Spool(to, reserve=1 << 20)
    seen: set[tuple[str, str]] = set()
    try:
        with _opened(path) as connection:
            done.lost += filter(None, [database.lost_log(connection, path)])
            for end in ENDS:
                torn = len(done.lost)
                for row in _readable(connection, end, done):
                    if row[:2] not in seen:
                        seen.add(row[:2])
                        _save(new, segments, row, done)
                    if len(seen) % OFTEN == 0:
                        new.commit()
                        on_progress(len(seen))
                if TORN not in done.lost[torn:]:
                    break
        new.commit()
    finally:
        new.close()
    return done


def _readable(connection: apsw.Connection, end: str, done: Salvaged) -> Iterator[Row]:
    try:
        yield from connection.execute(f"SELECT tbl, key, body, sum, segment FROM rows {end}")  # noqa: S608  our own words
    except (apsw.CorruptError, UnicodeDecodeError):
        done.lost.append(TORN)


def _save(new: Spool, segments: Segments, row: Row, done: Salvaged) -> None:
    table, key, body, checksum, segment = row
    if checksum_of(table, key, body) != checksum:
        done.lost.append(f"row {key!r} of table {table!r}: its checksum does not fit")
        return
    if segment is not None:
        try:
            body = segments.read(handle_of(body))
        except (Broken, OSError) as error:
            done.lost.append(f"row {key!r} of table {table!r}: {str(error).partition('. ')[0]}")
            return
        done.payloads += 1
    new.keep(table, key, body)
    done.rows += 1


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[apsw.Connection]:
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in path.parent.glob("*.sqlite")))
        raise BadInput(f"there is no spool {path}; there is: {there or 'none'}")
    lock = database.lock(path)
    try:
        connection = database.untouched(str(path))
        try:
            yield connection
        finally:
            connection.close()
    except apsw.Error as error:
        raise Broken(f"{path}: {error}. Nothing can be read of it.") from error
    finally:
        os.close(lock)
