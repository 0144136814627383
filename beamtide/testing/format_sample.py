"""A good file that a format is tried on: copies of it with other content, and what happens to files meanwhile."""

import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent, FileFormat

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class FormatSample:
    """A good file under a name of our own, where everything may be done to it."""

    known: FileFormat
    origin: pathlib.Path
    """The author's own, which nothing is done to."""
    path: pathlib.Path
    frames: int
    options: Mapping[str, str]
    wrong: Sequence[Mapping[str, str]]

    def whole(self) -> Arrays:
        """Return all frames."""
        return self.part(0, self.frames)

    def part(self, first: int, last: int, path: pathlib.Path | None = None) -> Arrays:
        """Return some frames, of this file or of another one, as plain arrays."""
        found = self.known.read(path or self.path, first, last, self.options)
        return {name: np.asarray(array) for name, array in found.items()}

    def count(self, path: pathlib.Path) -> int | None:
        """Return how many frames another file holds, None where that is refused in a sentence."""
        found: Extent | None = self.outcome(partial(self.known.probe, path, self.options), f"probe of {path.name}")
        return None if found is None else found.frames

    def outcome(self, do: Callable[[], Any], what: str) -> Any:
        """Return what comes of something; None for a sentence, and AssertionError for any other error."""
        try:
            return do()
        except BadInput as error:
            expect(len(str(error).strip().splitlines()) == 1, f"{what}: an error is one sentence, not {str(error)!r}")
        except Exception as error:
            raise AssertionError(f"{what}: raise BadInput or Unfinished, not {type(error).__name__}: {error}") from error
        return None

    def beside(self, content: bytes) -> pathlib.Path:
        """Return a file of the same kind with other content, alone in its folder."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.path.parents[1]))
        shutil.copytree(self.origin.parent, folder, dirs_exist_ok=True)
        (folder / self.path.name).write_bytes(content)
        return folder / self.path.name


def same(part: Arrays, whole: Arrays, first: int, last: int) -> bool:
    """Whether arrays are those rows of the whole; NaN is equal to NaN."""
    if part.keys() != whole.keys():
        return False
    pairs = [(np.asarray(part[name]), np.asarray(whole[name])[first:last]) for name in whole]
    return all(np.array_equal(one, other, equal_nan=other.dtype.kind in "fc") for one, other in pairs)


def expect(true: bool, sentence: str) -> None:
    """Raise AssertionError with a sentence if something is not true."""
    if not true:
        raise AssertionError(sentence)


def facts(folder: pathlib.Path) -> dict[str, bytes]:
    """Return all files below a folder, and what is in them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def open_files() -> list[pathlib.Path]:
    """Return the files that this process has open."""
    links = pathlib.Path("/proc/self/fd").iterdir()
    return [pathlib.Path(os.readlink(link)) for link in links if link.is_symlink()]


_listening: list[list[pathlib.Path]] = []


@cache  # a hook cannot be taken away again
def _listen() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _listening and isinstance(arguments[0], str):
        _listening[-1].append(pathlib.Path(arguments[0]))


@contextmanager
def watched(folder: pathlib.Path) -> Iterator[list[pathlib.Path]]:
    """Collect the files below a folder that Python opens meanwhile. What libraries open by themselves is not seen."""
    _listen()
    found: list[pathlib.Path] = []
    _listening.append(found)
    try:
        yield found
    finally:
        _listening.pop()
        found[:] = [path for path in found if path.is_relative_to(folder)]
