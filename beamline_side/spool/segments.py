"""Segments: append-only files with the payloads of a spool, in one folder per spool.

Theory: a payload is written once, at the end of a segment, and synced before the row that names it is committed; its handle says
where it lies and holds its checksum. The sink keeps what the sorter has stored by making a hard link to the sorter's file: so a
payload crosses the disk once per host, and the file system counts its users. A spool removes its link when none of its rows needs
the segment any more; with the last link the file is deleted.

A crash may leave a payload without a row (garbage at the end of a segment, or a segment that no row names, which the next start
removes), but never a row without its payload, because of the order above. Every start begins a new segment, so nothing is written
after such garbage. Names of segments are drawn at random and never used twice.

No clock. Invariants: the bytes that a row names never change; while a row names a segment, the folder of its spool has a name
for it; `_rows` counts the rows, those of the open batch included.
"""

import contextlib
import ctypes
import errno
import os
import pathlib
import re
import secrets
from collections import Counter
from collections.abc import Iterable

import xxhash

from beamtide.errors import Broken
from beamtide.machine import Parts
from beamtide.messages.base import Handle

_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux has it; it is not in `os`
WRITE = 2
"""SYNC_FILE_RANGE_WRITE of linux/fs.h."""
FULL_AT = 64 << 20
"""A segment with so many bytes is closed."""
OWNER = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,255}")
SEGMENT = re.compile(r"[0-9a-f]{16}")


class Segments:
    """The segments that one spool writes, and those of others that it keeps."""

    def __init__(self, spool: pathlib.Path, named: Iterable[tuple[Handle, int]], *, synced: bool, reclaim: bool = True) -> None:
        """Open the folder beside `spool`; `named` says for each segment the last payload in it, and how many rows it has."""
        self._owner, self._folder, self._synced = spool.stem, folder_of(spool), synced
        self._rows: Counter[str] = Counter()
        self._active, self._end, self._descriptor = "", 0, -1
        self._dirty = self._renamed = False
        for handle, rows in named:
            self._rows[name_of(handle)] = rows
            self._check_size(handle)
        if reclaim and self._folder.is_dir():
            for path in self._folder.iterdir():
                if not self._rows[path.name]:
                    path.unlink()

    def append(self, parts: Parts) -> Handle:
        """Write a payload; `sync` makes it durable. OSError: the disk has no room; nothing was added."""
        length, digest = sum(len(part) for part in parts), xxhash.xxh3_64()
        if self._descriptor < 0 or self._end >= FULL_AT:
            self._begin()
        at, done = self._end, 0
        rest = [memoryview(part).cast("B") for part in parts]
        while done < length:
            written = os.pwritev(self._descriptor, rest, at + done)
            done += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]
        if self._synced:
            _start_writing(self._descriptor, at, length)
        for part in parts:
            digest.update(part)
        self._end, self._dirty = at + length, True
        handle = Handle(self._owner, self._active, at, length, digest.intdigest())
        self._rows[name_of(handle)] += 1
        return handle

    def adopt(self, handle: Handle) -> None:
        """Keep a payload of another spool: make a link to its segment."""
        name = name_of(handle)
        if not self._rows[name]:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.link(self._home_of(handle), self._folder / name)
            self._renamed = True
        self._rows[name] += 1

    def sync(self) -> None:
        """Make durable what was written, before the rows that name it are committed."""
        if not self._synced:
            return
        if self._dirty:
            os.fdatasync(self._descriptor)
            self._dirty = False
        if self._renamed:
            for folder in (self._folder, self._folder.parent):
                _sync_folder(folder)
            self._renamed = False

    def release(self, handles: Iterable[Handle]) -> None:
        """Note that rows are deleted, and committed; delete the segments that no row names any more."""
        for name in {name_of(handle) for handle in self._less(handles)}:
            if not self._rows[name]:
                del self._rows[name]
                if name != f"{self._owner}-{self._active}":
                    (self._folder / name).unlink(missing_ok=True)

    def read(self, handle: Handle) -> bytes:
        """Return a payload that a row of ours names; Broken if it is damaged."""
        try:
            body = _read(self._folder / name_of(handle), handle)
        except FileNotFoundError as error:
            raise self._damaged(handle, "is gone") from error
        if len(body) != handle.length:
            raise self._damaged(handle, "is cut")
        if xxhash.xxh3_64_intdigest(body) != handle.xxh3:
            raise self._damaged(handle, "is damaged, its checksum does not fit")
        return body

    def borrow(self, handle: Handle) -> bytes:
        """Return a payload of another spool; KeyError if it is not here, or not what the handle says."""
        if not (OWNER.fullmatch(handle.spool) and SEGMENT.fullmatch(handle.segment) and handle.offset >= 0 < handle.length):
            raise KeyError(handle.spool)
        try:
            body = _read(self._home_of(handle), handle)
        except (OSError, OverflowError) as error:
            raise KeyError(handle.spool) from error
        if len(body) != handle.length or xxhash.xxh3_64_intdigest(body) != handle.xxh3:
            raise KeyError(handle.spool)
        return body

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _less(self, handles: Iterable[Handle]) -> list[Handle]:
        gone = list(handles)
        self._rows.subtract(name_of(handle) for handle in gone)
        return gone

    def _begin(self) -> None:
        """Begin a segment; delete the last one if no row names it."""
        self.sync()
        self.close()
        old, self._active, self._end = f"{self._owner}-{self._active}", secrets.token_hex(8), 0
        self._folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._folder / f"{self._owner}-{self._active}", flags, 0o600)
        self._renamed = True
        if not self._rows[old]:
            del self._rows[old]
            (self._folder / old).unlink(missing_ok=True)

    def _home_of(self, handle: Handle) -> pathlib.Path:
        return self._folder.parent / f"{handle.spool}.segments" / name_of(handle)

    def _check_size(self, handle: Handle) -> None:
        """Raise Broken at the start if a segment is missing or was cut."""
        try:
            size = (self._folder / name_of(handle)).stat().st_size
        except FileNotFoundError as error:
            raise self._damaged(handle, "is gone") from error
        if size < handle.offset + handle.length:
            raise self._damaged(handle, f"is cut: its segment has {size} bytes")

    def _damaged(self, handle: Handle, what: str) -> Broken:
        path = self._folder / name_of(handle)
        place = f"the payload of {handle.length} bytes at byte {handle.offset}"
        return Broken(f"{path}: {place} {what}. {ADVICE}")


ADVICE = "Nothing was changed. Check the disk; `beamtide spool check` says what is damaged, `salvage` keeps what is good."


def folder_of(spool: pathlib.Path) -> pathlib.Path:
    """Return the folder of a spool's segments: "state/spool/sink.segments" for "state/spool/sink.sqlite"."""
    return spool.with_name(f"{spool.stem}.segments")


def name_of(handle: Handle) -> str:
    """Return the name of a payload's segment, in whatever folder."""
    return f"{handle.spool}-{handle.segment}"


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no room, which passes; anything else does not."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _start_writing(descriptor: int, at: int, length: int) -> None:
    """Let the disk begin to write now, while the next payload comes in. Only a hint: `sync` completes it and reports errors."""
    if _SYNC_FILE_RANGE is not None:
        _SYNC_FILE_RANGE(descriptor, ctypes.c_int64(at), ctypes.c_int64(length), WRITE)


def _read(path: pathlib.Path, handle: Handle) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if handle.offset + handle.length > os.fstat(descriptor).st_size:
            return b""
        return os.pread(descriptor, handle.length, handle.offset)
    finally:
        os.close(descriptor)


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
