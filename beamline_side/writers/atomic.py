"""A file that is there as a whole or not at all.

It is written under a hidden name in the same folder, synced, and renamed; the rename is synced too. Whoever dies in between
leaves a hidden file, which the next attempt overwrites: the name is always the same, because a folder has one writer.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator


def hidden(path: pathlib.Path) -> pathlib.Path:
    """Return the name under which a file is written before it is renamed."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a hidden path to write and close; afterwards it stands at `path`, synced. After an exception nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = hidden(path)
    part.unlink(missing_ok=True)
    try:
        yield part
        _sync(part)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
