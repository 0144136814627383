"""Lazy frames, read from their files when they are used: a task of any length needs the memory of a few frames.

They behave like an array (length, shape, iteration, one frame, a slice of frames, `numpy.asarray`) and hold no data.
"""

import bisect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import LostFrames, Missing, moved


class LazyFrames(ABC):
    """A sequence of frames; `read` reads them."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self.ndim, self.size = shape, dtype, len(shape), int(np.prod(shape))

    @abstractmethod
    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames, in rising order; all of them are there."""

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self.read(range(len(self)))

    def __getitem__(self, at: int | slice) -> NDArray[Any]:
        if isinstance(at, slice):
            rows = range(*at.indices(len(self)))
            return np.stack(list(self.read(rows))) if rows else np.empty((0, *self.shape[1:]), self.dtype)
        if not 0 <= at < len(self):
            raise IndexError(f"frame {at} of {len(self)}")
        return next(self.read(range(at, at + 1)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


class Chosen(LazyFrames):
    """Some of other frames, in rising order."""

    def __init__(self, frames: LazyFrames, rows: NDArray[np.int64]) -> None:
        super().__init__((len(rows), *frames.shape[1:]), frames.dtype)
        self._frames, self._rows = frames, rows

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames."""
        return self._frames.read([int(self._rows[row]) for row in rows])


class InTurn(LazyFrames):
    """The frames of several files, one file after the other. BadInput: they do not fit together."""

    def __init__(self, parts: Sequence[Any]) -> None:
        first, self._parts = parts[0], tuple(parts)
        for part in parts:
            if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
                raise BadInput(
                    f"the files of one scan hold frames of {first.shape[1:]} {first.dtype} and of {part.shape[1:]} {part.dtype}; "
                    "did the detector's settings change during the scan? Process its parts as two scans"
                )
        *self._begins, total = itertools.accumulate((len(part) for part in parts), initial=0)
        super().__init__((total, *first.shape[1:]), first.dtype)

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames; files are opened in turn."""
        for number, here in itertools.groupby(rows, lambda row: bisect.bisect_right(self._begins, row) - 1):
            begins = self._begins[number]
            try:
                yield from chosen(self._parts[number], [row - begins for row in here])
            except LostFrames as error:
                raise LostFrames(moved(error.missing, begins)) from error


class RepeatedImage(LazyFrames):
    """One image that belongs to each of many frames, kept once."""

    def __init__(self, image: NDArray[Any], count: int) -> None:
        super().__init__((count, *image.shape), image.dtype)
        self._image = image

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield the image for each of these frames."""
        return (self._image for _ in rows)


def chosen(frames: Any, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield some frames, in rising order, of an array or of files: nothing else is read."""
    return frames.read(rows) if isinstance(frames, LazyFrames) else (frames[row] for row in rows)


def unreadable(frames: Any, first: int = 0, step: int = 1) -> tuple[Missing, ...]:
    """Return which frames of a task cannot be read: each is tried, or each `step`-th from the `first` on."""
    found: list[Missing] = []
    for row in range(first, len(frames), step) if isinstance(frames, LazyFrames) else ():
        try:
            frames[row]
        except LostFrames as error:
            found += error.missing
    return tuple(found)


def joined(parts: Sequence[Any]) -> Any:
    """Return arrays one after the other: copied together where they are in memory, else as they come from their files."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if all(isinstance(part, np.ndarray) for part in parts) else InTurn(parts)
