"""The mark of a spool: how much of its write-ahead log was committed, in a small file beside it.

Theory: SQLite takes the first damaged frame of its log for the end of what was written before a crash, so a flipped bit or a cut
would remove acknowledged rows silently. The mark says how many frames were committed, of which log (its two salts, which change
whenever SQLite starts it again). It is written after each commit and before anything is acknowledged, without a
sync: a SIGKILL leaves it exact, and a power cut leaves an older one, which promises less and raises no false alarm. So a log
that is shorter than its mark has lost something that was acknowledged.

Source: https://www.sqlite.org/fileformat2.html, chapter 4 (header and checksum of the log).
No clock. Invariant: the mark never says more than what was committed.
"""

import contextlib
import os
import pathlib
import struct

FORM = struct.Struct(">4sIII")
MAGIC = b"BTMK"
SALTS = struct.Struct(">II")
HEADER = 32
FRAME = 24


class Mark:
    """The mark of one spool, open for writing."""

    def __init__(self, path: pathlib.Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._salts: tuple[int, int] | None = None
        if not os.fstat(self._descriptor).st_size:
            self._write((0, 0), 0)  # reserves its room on the disk

    def committed(self, log: pathlib.Path, frames: int) -> None:
        """Note that the log has so many frames now."""
        self._salts = self._salts or salts_of(log) or (0, 0)
        self._write(self._salts, frames)

    def log_begins_anew(self) -> None:
        """Note that all of the log is in the database, and that SQLite starts it again with the next commit."""
        self._salts = None

    def clear(self) -> bool:
        """Promise nothing about the log, which is about to go into the database; False if that cannot be written."""
        with contextlib.suppress(OSError):
            self._write((0, 0), 0)
            return True
        return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write(self, salts: tuple[int, int], frames: int) -> None:
        os.pwrite(self._descriptor, FORM.pack(MAGIC, *salts, frames), 0)


def promised(path: pathlib.Path) -> tuple[tuple[int, int], int]:
    """Return the salts and the number of frames of a mark; no frames if there is none."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) < FORM.size or content[:4] != MAGIC:
        return (0, 0), 0
    _, *salts, frames = FORM.unpack_from(content)
    return (salts[0], salts[1]), frames


def salts_of(log: pathlib.Path) -> tuple[int, int] | None:
    """Return the salts of a log; None if it has no valid header."""
    try:
        with log.open("rb") as file:
            header = file.read(HEADER)
    except FileNotFoundError:
        return None
    if len(header) < HEADER or _checksum(header[:24]) != struct.unpack_from(">II", header, 24):
        return None
    first, second = SALTS.unpack_from(header, 16)
    return first, second


def _checksum(header: bytes) -> tuple[int, int]:
    """Return SQLite's checksum of the header; the last bit of its magic number gives the byte order."""
    words = struct.unpack(f"{'>' if header[3] & 1 else '<'}6I", header)
    first = second = 0
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def missing(path: pathlib.Path, log: pathlib.Path, readable: int, page: int) -> str:
    """Say what a log has lost that its mark promises, and where; "" if nothing. `readable`: the frames that SQLite accepts."""
    salts, frames = promised(path)
    if not frames:
        return ""
    now = salts_of(log)
    if now is not None and now != salts:
        return ""  # the log was started again since: all that the mark promises is in the database
    if now == salts and readable >= frames:
        return ""
    at = HEADER + readable * (FRAME + page) if now else 0
    return f"{log} is damaged or cut at byte {at}: {readable if now else 0} of {frames} committed pages can be read"
