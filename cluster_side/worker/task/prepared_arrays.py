"""A cache of prepared arrays: what a modality computes once for given settings, kept for all later workers, memory-mapped.

    <folder>/<key>/index.json    name -> checksum and file of each array
    <folder>/<key>/0.npy ...

Theory: the key is a digest of everything that went in (settings, calibration files, versions), so an entry never changes and
never becomes wrong. It is written under a temporary name and renamed; a lock lets one of many processes build it while the others
wait, but correctness does not depend on the lock: without locks on the file system, or if its holder hangs, two build the same. A
damaged entry is built again. When the entries exceed `BOUND`, those used longest ago are deleted; processes that have mapped them
keep them. A full or read-only disk costs time, not tasks.

Clock policy: `beamtide.clock.monotonic` for how long to wait for another builder.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray

from beamtide import clock
from cluster_side.modalities.base import Keep

Arrays = Mapping[str, NDArray[Any]]
BOUND = 4 << 30
"""Bytes that all entries of a folder may have together."""
PATIENCE = 300.0
"""Seconds to wait for another process that builds the same; then it is built twice."""
GLANCE = 0.02
INDEX = "index.json"


def keeper(folder: pathlib.Path, key: str, bound: int = BOUND) -> Keep:
    """Return a function that returns the entry of `key`, or builds and keeps it."""

    def keep(build: Callable[[], Arrays]) -> Arrays:
        found = _read(folder / key)
        if found is not None:
            return found
        with _alone(folder, key):
            found = _read(folder / key)  # another process may have built it meanwhile
            return _build(folder, key, build, bound) if found is None else found

    return keep


def _build(folder: pathlib.Path, key: str, build: Callable[[], Arrays], bound: int) -> Arrays:
    made = build()
    try:
        _publish(folder, key, made)
        _sweep(folder, key, bound)
    except OSError:
        return made
    return _read(folder / key) or made


def _read(entry: pathlib.Path) -> Arrays | None:
    """Return the arrays of an entry; None if it is not there, or not what was written."""
    try:
        index = json.loads((entry / INDEX).read_bytes())
        arrays = {name: np.load(entry / file, mmap_mode="r", allow_pickle=False) for name, (file, _) in index.items()}
        if any(_checksum(arrays[name]) != wanted for name, (_, wanted) in index.items()):
            return None
    except (OSError, ValueError, TypeError, EOFError):
        return None
    with contextlib.suppress(OSError):
        os.utime(entry / INDEX)
    return arrays


def _publish(folder: pathlib.Path, key: str, arrays: Arrays) -> None:
    for left in folder.glob(f".{key}.*"):  # left by a builder that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    beside = folder / f".{key}.{os.uname().nodename}.{os.getpid()}"
    try:
        beside.mkdir(mode=0o700)
        index = {}
        for number, (name, array) in enumerate(arrays.items()):
            whole = np.ascontiguousarray(array)
            index[name] = f"{number}.npy", _checksum(whole)
            with _synced(beside / index[name][0]) as file:
                np.save(file, whole, allow_pickle=False)
        with _synced(beside / INDEX) as file:
            file.write(json.dumps(index).encode())
        if (folder / key).exists():  # damaged
            damaged = beside.with_name(f"{beside.name}.damaged")
            (folder / key).rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        beside.rename(folder / key)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextlib.contextmanager
def _synced(path: pathlib.Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sweep(folder: pathlib.Path, key: str, bound: int) -> None:
    """Delete the entries that were used longest ago until the rest has at most `bound` bytes; never that of `key`."""
    entries = sorted((index.stat().st_mtime, index.parent) for index in folder.glob(f"*/{INDEX}"))
    sizes = {entry: sum(file.stat().st_size for file in entry.iterdir()) for _, entry in entries}
    total = sum(sizes.values())
    for _, entry in entries:
        if total <= bound:
            return
        if entry.name != key:
            total -= sizes[entry]
            shutil.rmtree(entry, ignore_errors=True)
            entry.with_name(f"{entry.name}.lock").unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: pathlib.Path, key: str) -> Iterator[None]:
    """Hold the lock of a key; continue without it where the file system has no locks."""
    end = clock.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = stack.enter_context((folder / f"{key}.lock").open("a"))
            while not _locked(file.fileno()) and clock.monotonic() < end:
                clock.pause(GLANCE)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checksum(array: NDArray[Any]) -> str:
    seen = xxhash.xxh3_128(f"{array.dtype.str} {array.shape} ".encode())
    seen.update(np.asarray(array).reshape(-1).view(np.uint8).data)
    return seen.hexdigest()
