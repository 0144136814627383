"""The interface of a file format: two functions, and what they return."""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from beamtide.errors import BadInput


class Unfinished(BadInput):
    """The file is not readable or complete yet: try later. After the scan's end, the text says what is wrong with the file."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Frames `first <= frame < last` of a file that nobody can read, and why: never written, or damaged."""

    first: int
    last: int
    why: str


class LostFrames(BadInput):
    """Some frames of a file cannot be read; the others can, if they are asked for without these."""

    def __init__(self, missing: "tuple[Missing, ...]") -> None:
        super().__init__(missing[0].why)
        self.missing = missing


def moved(missing: "tuple[Missing, ...]", by: int) -> "tuple[Missing, ...]":
    """Return the same frames, counted from elsewhere."""
    return tuple(Missing(one.first + by, one.last + by, one.why) for one in missing)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a file holds: so many frames, of which some may be missing."""

    frames: int
    missing: tuple[Missing, ...] = ()
    """Frames that were laid out and are not there (yet): in order, without overlap."""
    count: int | None = None
    """The detector's own count, from 0, of frame 0 of this file; None where it does not count over files."""
    begin: int = 0
    """The first frame of this file that is its own: where the count begins behind 0."""
    shape: tuple[int, ...] = ()
    """The axes that all its arrays share, where there are more than one."""
    cut: str = ""
    """Why frames are lost behind the last one, and nobody knows how many; "" if none are, or their count shows it."""
    exact: str = ""
    """Why nobody knows which frame is which unless there are as many as there should be; "" where they have their places."""


@runtime_checkable
class OpensMore(Protocol):
    """A format that opens more files than the one that a task names."""

    def beside(self, path: pathlib.Path, options: Mapping[str, str]) -> tuple[pathlib.Path, ...]:
        """Return these files; they must lie below the same root."""
        ...


@runtime_checkable
class StatesUnits(Protocol):
    """A format whose files say in which units their columns are."""

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the unit of each column that states one, in the words of the file."""
        ...


class FileFormat(Protocol):
    """How frames lie in one kind of file."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many complete frames a file holds.

        Unfinished: still being written, or truncated. BadInput: complete, but not what was configured
        (dataset missing, lengths of its arrays differ).
        """
        ...

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, NDArray[Any]]:
        """Return the arrays of frames `first <= frame < last`; first axis: frame. Errors as for `probe`."""
        ...

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return the scan's shape (slow, fast) where the file knows it."""
        ...
