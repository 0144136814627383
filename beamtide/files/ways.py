"""In which ways files can be meant to hold the frames of a scan; `layout` lays each of them out, and takes what they agree on.

Pure. No clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from beamtide.config.models import SourceConfig
from beamtide.files.row import FileFact, counts_through

SLACK = 10
"""A line may lose, or have too many, one of so many frames in every file (at least 1), and is still taken for a line."""


@dataclass(frozen=True, slots=True)
class ScanPoints:
    """What is known of the scan: the points that are to be covered (measured, or planned), those planned, and those of a line."""

    points: int
    planned: int
    width: int

    @classmethod
    def of(cls, points: int, shape: tuple[int, ...]) -> "ScanPoints":
        """Return that of a scan with this shape of which so many points are (to be) measured."""
        return cls(points, max(points, math.prod(shape)), shape[-1] if len(shape) > 1 else math.prod(shape))

    @property
    def lines(self) -> int:
        """How many lines the points are."""
        return -(-self.points // max(1, self.width))


def ways_of(files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig, *, closed: bool) -> list[int | None]:
    """Return the lengths that each file may be meant to have; None: that which it has."""
    if source.frames_per_file != "auto":
        said = source.frames_per_file
        return [said if isinstance(said, int) else scan.width if said == "line" else None]
    good = [file.frames for file in files if not file.trouble]
    full, total, count = longest(files), sum(good), len(files)
    if not full or (closed and count == 1) or not any(letter in source.match for letter in "*?["):
        return [None]
    regular = all(file.frames == full for file in files[:-1] if not file.trouble)
    per_line, whole_lines = scan.planned > scan.width, scan.planned > scan.width and full % scan.width == 0
    line = per_line and scan.width < 2 * full and full < 2 * scan.width and full != scan.width
    needed = -(-(scan.points if closed else scan.planned) // full)
    if not closed:
        found: list[int | None] = [full] if count <= needed else []
        found += [scan.width] if line and count <= scan.planned // scan.width else []
        return found + ([] if regular or whole_lines else [None])
    everything = total == scan.points and not any(file.trouble for file in files)
    line = line and count == scan.lines
    near = abs(full - scan.width) <= max(1, scan.width // SLACK)
    found = [scan.width] if line else []
    if (regular or count == needed or (whole_lines and count <= needed)) and (not line or everything or not near):
        found.append(full)
    if count < needed and len(good) > 1 and not counts_through(files):
        return [*found, None] if everything else []
    return found + ([None] if everything and not regular else [])


def is_unsettled(files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig) -> bool:
    """Whether the second of two files may turn out to be longer than the first, so that the first one is short."""
    frames = [file.frames for file in files]
    whole_lines = scan.planned > scan.width and max(frames, default=0) % max(1, scan.width) == 0
    return source.frames_per_file == "auto" and len(files) == 2 and not whole_lines and sum(frames) < scan.planned


def longest(files: Sequence[FileFact]) -> int:
    """Return how many frames the longest file holds."""
    return max((file.frames for file in files if not file.trouble), default=0)


def untold(files: Sequence[FileFact], scan: ScanPoints) -> str:
    """Say why nobody can tell to which index frames belong."""
    counts = [(file.path, file.frames) for file in files if not file.trouble]
    full = max(frames for _, frames in counts)
    odd = next(((path, frames) for path, frames in counts if frames != full), counts[-1])
    shape = f"{scan.lines} lines of {scan.width} points" if scan.planned > scan.width else f"{scan.points} points"
    return (
        f"{len(files)} files with {sum(frames for _, frames in counts)} frames are not {shape} ({odd[0]} holds {odd[1]}, others "
        f"up to {full}), so nobody can tell to which index a frame belongs: say source.frames_per_file in the pipeline file "
        "(line: each file is a line; a number: each file has room for so many; any: one behind the other, nothing is lost)"
    )
