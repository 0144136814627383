"""Opening an HDF5 file of somebody else, and the true reason why it does not open.

Rules: a file is open only during one call. HDF5's file locking stays on: it is what tells us that a writer still holds the file.
A file that may be whole later (locked by its writer, cut off, empty, not there yet) is Unfinished; one that no waiting helps is
BadInput. HDF5 says both in one kind of exception, so its words are looked at; they are those of HDF5 1.10 to 2.0. A file that
begins as no HDF5 file does is of another kind, and will not become one: only nothing, zeros and the first bytes of HDF5 may.
"""

import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished
from beamtide.formats.recognise import HDF5, hint

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks says."""
LOCKING = (
    "the file system has no lock service, so nobody can tell whether a file is still being written: set "
    "HDF5_USE_FILE_LOCKING=FALSE for Beamtide and its jobs if files get their names only when they are complete, "
    "or have locks switched on"
)


@contextmanager
def opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """Open a file for reading, as long as the block lasts; Unfinished and BadInput say why it cannot be read."""
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise why_not(path, error) from error
    with file:
        try:
            yield file
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise Unfinished(f"{path} cannot be read; it is still being written, or damaged ({said})") from error


def without_locks(path: pathlib.Path) -> str:
    """Say why HDF5 cannot open a file on a file system without locks; "" if it can, or was told not to lock."""
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return ""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return f"{path} cannot be locked ({error.strerror}): {LOCKING}" if error.errno in NO_LOCKS else ""
    return ""


def why_not(path: pathlib.Path, error: Exception) -> BadInput:
    """Return why a file cannot be read, after HDF5 said so."""
    said = " ".join(str(error).split())
    number = getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError):
        return Unfinished(f"{path} is not there (yet); check roots.raw and source.match")
    if isinstance(error, PermissionError):
        return BadInput(f"{path} may not be read by this account; ask for read permission on it")
    if "lock" in said and (number in NO_LOCKS or any(os.strerror(one) in said for one in NO_LOCKS)):
        return BadInput(f"{path} cannot be locked ({os.strerror(number or errno.ENOLCK)}): {LOCKING}")
    if "unable to lock file" in said:
        return Unfinished(f"{path} is still being written: another program has it open for writing, and its lock on it")
    if "truncated file" in said:
        return Unfinished(f"{path} is cut off: it is still being written, or damaged ({said})")
    if "file signature not found" in said:
        return _no_signature(path)
    if "already open for write" in said:
        return Unfinished(
            f"{path} was not closed by its writer: it is still being written, or its writer died; "
            f"in that case `h5clear -s {path}` makes it readable"
        )
    return Unfinished(f"{path} cannot be read; it is still being written, or damaged ({said})")


def _no_signature(path: pathlib.Path) -> BadInput:
    """Return why a file without HDF5's first bytes cannot be read: they may come where nothing else stands."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(HDF5))
    except OSError as error:
        return Unfinished(f"{path} cannot be read ({error.strerror})")
    if not begins:
        return Unfinished(f"{path} is empty: it is still being written, or damaged")
    if HDF5.startswith(begins) or not begins.strip(b"\0"):
        return Unfinished(f"{path} has no beginning of an HDF5 file (yet): it is still being written, or damaged")
    return BadInput(f"{path} is no HDF5 file: it begins with {begins!r}{hint(path)}")
