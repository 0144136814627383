"""Atomic files: a file exists as a whole or not at all.

It is written under a hidden name in the same folder, synced, and renamed; the rename is synced too. A crash in between leaves a
hidden file, which the next attempt overwrites: the name is always the same, because a folder has one writer.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from beamtide.errors import Broken

RESERVE = 64 << 20
"""Bytes that stay free on the disk of the results."""


def hidden(path: pathlib.Path) -> pathlib.Path:
    """Return the name under which a file is written before it is renamed."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a hidden path to write and close; afterwards the file is at `path`, synced. An exception leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = hidden(path)
    part.unlink(missing_ok=True)
    try:
        with plainly(path):
            yield part
        sync(part)
        part.replace(path)
    except BaseException:
        discard(part)
        raise
    sync(path.parent)


@contextlib.contextmanager
def plainly(path: pathlib.Path) -> Iterator[None]:
    """Turn a failed write of HDF5 into `Broken`: the library is not usable after it, so a new process is needed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        told = re.search(r"write failed.*errno = (\d+)", str(error), re.DOTALL)
        if told is None:
            raise
        raise Broken(f"{path} could not be written: {os.strerror(int(told[1]))}. Free space there; nothing is lost.") from error


def ensure_room(folder: pathlib.Path, needed: int) -> None:
    """Raise OSError when the disk of a folder has no room for so many bytes and a reserve; call it before HDF5 writes."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        what = f"{os.strerror(errno.ENOSPC)}: {free >> 20} MiB are free, {(needed + RESERVE) >> 20} MiB are needed"
        raise OSError(errno.ENOSPC, what, str(folder))


def discard(path: pathlib.Path) -> None:
    """Delete a file and give its space back now: HDF5 keeps a file open that it could not close. Never raises.

    What has another name too (a hard link) keeps its content.
    """
    with contextlib.suppress(OSError):
        if os.lstat(path).st_nlink == 1 and not path.is_symlink():
            os.truncate(path, 0)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def sync(path: pathlib.Path) -> None:
    """Make a file or a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
