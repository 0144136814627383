"""Room on the disk for the end of what was begun.

Theory: new work is refused while less than the reserve would stay free, so that acknowledgements, verdicts and dead letters,
which are small and free more than they take, go on. Others may fill the disk to the last byte; for that case the reserve lies
there as a file of its full size. It is given up when a write finds no room, and taken again when there is room for twice its
size: then new work is accepted again. (Given up, its room is open to others too; if they take that as well, the next write
that fails ends the process, and a restart goes on from the last commit.)

No clock: every question looks at the disk, which costs a microsecond. Invariant: the file has its full size, or it is spent.
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
            "work is accepted again by itself"
        )

    def spend(self) -> bool:
        """Give the room to whoever writes next; False if it was given before."""
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
