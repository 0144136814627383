"""Reads what the saveData module of EPICS writes (.mda, big endian, XDR): a scan, and for each of its points the scan inside.

Source: mdaReader.txt of the synApps sscan module.
"""

import pathlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Scan:
    """Detectors by the name of their process variable, one value per point; the scans inside, one per point."""

    detectors: dict[str, NDArray[np.float32]]
    inner: tuple["Scan", ...]


def read(path: pathlib.Path) -> Scan:
    """Return the outermost scan of a file."""
    reader = _Reader(path.read_bytes())
    reader.at = 8  # version and scan number
    (rank,) = reader.integers(1)
    reader.integers(rank + 2)  # shape, whether it is regular, where the extra variables are
    return reader.scan(reader.at)


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def scan(self, at: int) -> Scan:
        self.at = at
        rank, points, _ = self.integers(3)
        inside = self.integers(points) if rank > 1 else []
        self.text(), self.text()  # name and time
        positioners, detectors, triggers = self.integers(3)
        for _ in range(positioners):
            self.described(7)
        names = [self.described(3) for _ in range(detectors)]
        for _ in range(triggers):
            self.described(1)
            self.at += 4
        self.at += 8 * points * positioners
        values = {name: self.floats(points) for name in names}
        return Scan(values, tuple(self.scan(where) for where in inside))

    def integers(self, count: int) -> list[int]:
        found = struct.unpack_from(f">{count}i", self._content, self.at)
        self.at += 4 * count
        return list(found)

    def described(self, texts: int) -> str:
        """Pass a number and some texts; return the first."""
        self.integers(1)
        first, *_ = [self.text() for _ in range(texts)]
        return first

    def text(self) -> str:
        if not self.integers(1)[0]:
            return ""
        (length,) = self.integers(1)
        begin, self.at = self.at, self.at + (length + 3) // 4 * 4
        return self._content[begin : begin + length].decode()

    def floats(self, count: int) -> NDArray[np.float32]:
        found = np.frombuffer(self._content, ">f4", count, self.at).astype(np.float32)
        self.at += 4 * count
        return found
