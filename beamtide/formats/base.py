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
class Extent:
    """What a file holds: so many frames."""

    frames: int


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
