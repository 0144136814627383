"""Assigns the frames of a scan's files to its indexes: which index is which frame of which file.

Clock policy: none. Invariant: pieces follow each other without gap or overlap, from index 0 on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from beamtide.config.models import SourceConfig
from beamtide.files.row import FileFact
from beamtide.messages.tasks import InputFile

NO_FILE = "no file came for these indexes"


@dataclass(frozen=True, slots=True)
class Piece:
    """Indexes `[start, stop)` in one file from frame `first` on; or, with `trouble`, indexes that cannot be read."""

    start: int
    stop: int
    path: str = ""
    first: int = 0
    trouble: str = ""


def pieces_of(files: Sequence[FileFact], points: int, *, closed: bool) -> Iterator[Piece]:
    """Assign files to indexes; a file that cannot be read ends the sequence, or is a gap once the scan is closed.

    Scans that are stitched together have the same number of indexes each, so missing frames of one do not shift the next.
    """
    parts = max((file.part[1] for file in files), default=1)
    if points % parts:
        yield Piece(0, points, trouble=f"{points} points cannot be those of {parts} scans of the same size; say --shape")
        return
    for part in range(parts):
        begin, end = part * points // parts, (part + 1) * points // parts
        own = [file for file in files if file.part[0] == part]
        stop = begin
        for piece in _pieces_of_one(own, end - begin, closed=closed):
            stop = begin + piece.stop
            yield replace(piece, start=begin + piece.start, stop=stop)
        if stop < end:
            return


def _pieces_of_one(files: Sequence[FileFact], points: int, *, closed: bool) -> Iterator[Piece]:
    at, typical = 0, next((file.frames for file in files if not file.trouble and file.frames), 0)
    last_good = max((number for number, file in enumerate(files) if not file.trouble), default=-1)
    for number, file in enumerate(files):
        if file.trouble and not closed:
            return
        missing = typical if number < last_good else points - at
        stop = min(points, at + (missing if file.trouble else file.frames))
        if stop > at:
            yield Piece(at, stop, trouble=file.trouble) if file.trouble else Piece(at, stop, file.path)
        at = stop
    if closed and at < points:
        yield Piece(at, points, trouble=NO_FILE)


def between(pieces: Sequence[Piece], start: int, stop: int) -> Iterator[Piece]:
    """Return the parts of pieces that lie in `[start, stop)`."""
    for piece in pieces:
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first < last:
            yield Piece(first, last, piece.path, piece.first + first - piece.start, piece.trouble)


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
            options=source.options,
        )
        for part in parts
        if not part.trouble
    )
