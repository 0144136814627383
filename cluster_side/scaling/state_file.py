"""The state file of the autoscaler, and the lock that allows only one autoscaler per site.

Theory: a line is a checksum and a JSON list (table, key, value; no value = deleted); it is synced before anything that depends on
it is done. A start reads the lines up to the first damaged one (a crash may leave a torn last line), and writes the file again.
The kernel holds the lock while the process lives, so a SIGKILL frees it; each holder gets the next fencing number, which is part
of every token. The rows are few, and people can read them: therefore this is not SQLite (ADR 0016).

Invariants: when `keep` returns, its rows are on disk; at most one process holds the lock; a fencing number is used once.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import xxhash

from beamtide.errors import BadInput, Broken

MOST_LINES = 10_000
Rows = dict[str, dict[str, Any]]


class StateFile:
    """Rows by table and key; open while we hold the lock."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._lines = folder, 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock, self.fence = _take_charge(folder / "lock")
            self.rows = _read(folder / "journal.jsonl")
            self._rewrite()
        except OSError as error:
            raise BadInput(f"cannot write to {folder}: {error.strerror}; check the folder `state` of the site file") from error

    def table(self, name: str) -> dict[str, Any]:
        """Return the rows of a table by key."""
        return self.rows.get(name, {})

    def keep(self, changes: Mapping[tuple[str, str], Any]) -> None:
        """Write rows (None deletes one) and wait until they are on disk."""
        if not changes:
            return
        for (table, key), value in changes.items():
            _apply(self.rows, table, key, value)
        try:
            self._file.write(b"".join(_line(table, key, value) for (table, key), value in changes.items()))
            os.fdatasync(self._file.fileno())
            self._lines += len(changes)
            if self._lines > MOST_LINES:
                self._file.close()
                self._rewrite()
        except OSError as error:
            raise Broken(f"cannot write to {self._folder}: {error.strerror}; nothing is ordered that is not on disk") from error

    def close(self) -> None:
        """Release the lock."""
        self._file.close()
        os.close(self._lock)

    def _rewrite(self) -> None:
        path, beside = self._folder / "journal.jsonl", self._folder / "journal.new"
        rows = [(table, key, value) for table, some in self.rows.items() for key, value in some.items()]
        with beside.open("wb") as file:
            file.write(b"".join(_line(*row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        self._file, self._lines = path.open("ab", buffering=0), len(rows)


def peek(folder: pathlib.Path) -> Rows:
    """Return the rows of a state file without taking the lock; empty if there is none."""
    return _read(folder / "journal.jsonl")


def _line(table: str, key: str, value: Any) -> bytes:
    text = json.dumps([table, key, value]).encode()
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


def _read(path: pathlib.Path) -> Rows:
    rows: Rows = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().split(b"\n"):
            checksum, _, text = line.partition(b" ")
            if xxhash.xxh3_64_hexdigest(text).encode() != checksum:
                break
            _apply(rows, *json.loads(text))
    return rows


def _apply(rows: Rows, table: str, key: str, value: Any) -> None:
    if value is None:
        rows.get(table, {}).pop(key, None)
    else:
        rows.setdefault(table, {})[key] = value


def _take_charge(path: pathlib.Path) -> tuple[int, int]:
    """Return the descriptor of the lock, and our fencing number."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    said = os.pread(descriptor, 4096, 0).decode(errors="replace")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        who = said.partition(" ")[2].strip() or "somewhere"
        raise BadInput(
            f"another autoscaler runs for this site ({who}; {path}): stop it first, two would order everything twice"
        ) from error
    number = said.partition(" ")[0].strip()
    fence = int(number) + 1 if number.isdecimal() else 1
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{fence} process {os.getpid()} on {platform.node()}\n".encode(), 0)
    os.fsync(descriptor)
    return descriptor, fence
