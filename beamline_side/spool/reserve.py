"""The reserve: room on the disk to finish begun work.

Theory: new work is refused while less than the reserve would stay free, so that acknowledgements, verdicts and dead letters,
which are small and free more than they take, can still be written. Other programs may fill the disk completely; for that case the
reserve exists as a file of its full size. It is released when a write finds no room, and made again when there is room for twice
its size: then new work is accepted again. (Other programs can use the released room too; then the next write fails and ends the
process, and a restart continues from the last commit.)

No clock: every call asks the disk, which costs a microsecond. Invariant: the file has its full size, or it is released.
"""

import os
import pathlib

from beamline_side.spool.segments import is_full

USUAL = 64 << 20


class Reserve:
    """The reserve of one spool: `size` bytes in a file of their own."""

    def __init__(self, path: pathlib.Path, size: int) -> None:
        self._path, self._size = path, size
        self.spent = not self._take()

    def room(self, size: int) -> str:
        """Return why there is no room for `size` bytes of new work; "" if there is."""
        found = os.statvfs(self._path.parent)
        free = found.f_bavail * found.f_frsize
        if self.spent and free >= 2 * self._size:
            self.spent = not self._take()
        if not self.spent and free - size >= self._size:
            return ""
        needed = size + self._size >> 20
        return (
            f"the disk of {self._path.parent} is full ({free >> 20} MiB free, {needed} MiB are needed): make room on it, and new "
            "work is accepted again automatically"
        )

    def spend(self) -> bool:
        """Release the room for the next write; False if it was released before."""
        if self.spent:
            return False
        os.truncate(self._path, 0)
        self.spent = True
        return True

    def _take(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != self._size:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, self._size)
            return True
        except OSError as error:
            if not is_full(error):
                raise
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
