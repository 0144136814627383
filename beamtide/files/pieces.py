"""Pieces of a scan: which indexes are which frames of which file (`layout` decides), cut and joined.

Clock policy: none. Invariant: pieces follow each other without gap or overlap, from index 0 on.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from beamtide.config.models import SourceConfig
from beamtide.messages.tasks import FileStamp, InputFile

NO_FILE = "no file came for these indexes"


@dataclass(frozen=True, slots=True)
class Piece:
    """Indexes `[start, stop)` in one file from frame `first` on; or, with `trouble`, indexes that cannot be read."""

    start: int
    stop: int
    path: str = ""
    first: int = 0
    trouble: str = ""
    options: dict[str, str] = field(default_factory=dict)
    """For the format, beyond those of the pipeline file."""
    stamp: FileStamp | None = None


def moved(found: Iterable[tuple[str, int]], known: Mapping[str, int]) -> str:
    """Say which file belongs elsewhere now than it did when it was used; "" if none does. Files -> the index of their frame 0."""
    for path, origin in found:
        if known.get(path, origin) != origin:
            return (
                f"{path} was taken for indexes from {known[path]} on, and by what its neighbours hold now it would begin at "
                f"{origin}: a file changed after tasks were made of it; reprocess the scan when its files do not change any more"
            )
    return ""


def between(pieces: Sequence[Piece], start: int, stop: int) -> Iterator[Piece]:
    """Return the parts of pieces, which follow each other, that lie in `[start, stop)`."""
    for at in range(bisect_right(pieces, start, key=lambda piece: piece.stop), len(pieces)):
        piece = pieces[at]
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first >= last:
            return
        if (first, last) == (piece.start, piece.stop):
            yield piece
        else:
            yield replace(piece, start=first, stop=last, first=piece.first + first - piece.start)


def runs(pieces: Sequence[Piece], start: int, stop: int) -> Iterator[list[Piece]]:
    """Return the parts of a block: readable pieces that touch go together, unreadable ones stand alone."""
    together: list[Piece] = []
    for part in between(pieces, start, stop):
        if part.trouble:
            if together:
                yield together
            yield [part]
            together = []
        else:
            together.append(part)
    if together:
        yield together


def input_files(parts: Sequence[Piece], source: SourceConfig) -> tuple[InputFile, ...]:
    """Return the readable pieces as inputs of a task."""
    return tuple(
        InputFile(
            root="raw",
            path=part.path,
            format=source.format,
            first=part.first,
            last=part.first + part.stop - part.start,
            options=source.options | part.options,
            was=part.stamp,
        )
        for part in parts
        if not part.trouble
    )
