"""The state file of the autoscaler, and the lock that allows only one autoscaler per site.

Theory: a line is a checksum and a JSON list (table, key, value; no value = forgotten). The pump syncs the lines of a batch before
it sends or calls anything that they promise. A start reads the lines up to the first that is damaged (a torn end is what a crash
leaves), and writes the file anew. The lock is held by the kernel for as long as we live, so a SIGKILL frees it; each holder gets
the next fencing number, which stands in every token. The rows are few, and people can read them: that is why this is no SQLite
(ADR 0016).

Invariants: what was kept before `commit` returned is on disk; at most one process holds the lock; a fencing number is used once.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform

import xxhash

from beamtide.errors import BadInput, Broken
from beamtide.machine import Parts
from beamtide.messages.base import Handle

MOST_LINES = 10_000
Rows = dict[str, dict[str, bytes]]
"""Values by table and key, in JSON."""


class StateFile:
    """Rows that the pump keeps; open while we are in charge."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._lines = folder, 0
        self._waiting: list[bytes] = []
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock, self.fence = _take_charge(folder / "lock")
            self.rows = _read(folder / "journal.jsonl")
            self._rewrite()
        except OSError as error:
            raise BadInput(f"cannot write to {folder}: {error.strerror}; check the folder `state` of the site file") from error

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Insert or replace a row; its body is one JSON value."""
        assert isinstance(body, bytes), "a row of the state file is JSON"
        self.rows.setdefault(table, {})[key] = body
        self._waiting.append(_line(table, key, body))

    def forget(self, table: str, key: str) -> None:
        """Delete a row."""
        self.rows.get(table, {}).pop(key, None)
        self._waiting.append(_line(table, key, b"null"))

    def commit(self) -> None:
        """Wait until everything is on disk."""
        if not self._waiting:
            return
        try:
            self._file.write(b"".join(self._waiting))
            os.fdatasync(self._file.fileno())
            self._lines += len(self._waiting)
            self._waiting.clear()
            if self._lines > MOST_LINES:
                self._file.close()
                self._rewrite()
        except OSError as error:
            raise Broken(f"cannot write to {self._folder}: {error.strerror}; nothing is ordered that is not on disk") from error

    def progress(self) -> dict[str, float]:
        """Return nothing: the numbers of the autoscaler are those of its core."""
        return {}

    def room(self, size: int) -> str:
        """There is room for what is kept here: a few rows."""
        return ""

    def close(self) -> None:
        """Release the lock."""
        self._file.close()
        os.close(self._lock)

    def _rewrite(self) -> None:
        path, beside = self._folder / "journal.jsonl", self._folder / "journal.new"
        rows = [(table, key, body) for table, some in self.rows.items() for key, body in some.items()]
        with beside.open("wb") as file:
            file.write(b"".join(_line(*row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        self._file, self._lines = path.open("ab", buffering=0), len(rows)


def peek(folder: pathlib.Path) -> Rows:
    """Return the rows of a state file without taking the lock; empty if there is none."""
    return _read(folder / "journal.jsonl")


def _line(table: str, key: str, body: bytes) -> bytes:
    text = b"[%b, %b, %b]" % (json.dumps(table).encode(), json.dumps(key).encode(), body)
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


def _read(path: pathlib.Path) -> Rows:
    rows: Rows = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().split(b"\n"):
            checksum, _, text = line.partition(b" ")
            if xxhash.xxh3_64_hexdigest(text).encode() != checksum:
                break
            table, key, value = json.loads(text)
            if value is None:
                rows.get(table, {}).pop(key, None)
            else:
                rows.setdefault(table, {})[key] = json.dumps(value).encode()
    return rows


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
