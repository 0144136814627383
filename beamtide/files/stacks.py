"""Arrays of (line, column, …) in a file, as maps are saved, told apart from arrays of (frame, detector, …).

Theory: both look the same in a file, but only one of them makes as many points as the scan has. One file whose first two axes are
lines and columns of the scan is a stack. Where only the product fits, nobody can tell, and `options.point_axes` has to say it.
While a scan runs an array may grow through such a shape: nothing is certain then. An array whose last two axes are the lines and
columns, and whose first is not the scan, has channels first: taken for frames it would be silent nonsense, so it is refused.

Pure. No clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from beamtide.config.models import SourceConfig
from beamtide.files.row import FileFact
from beamtide.files.ways import ScanPoints
from beamtide.formats.base import Missing

OPTION = "point_axes"


@dataclass(frozen=True, slots=True)
class Axes:
    """The files as they are to be taken; or why they cannot be, which may be for now only."""

    files: Sequence[FileFact]
    trouble: str = ""


def with_axes(files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig, *, closed: bool) -> Axes:
    """Return the files, a stack of lines as one frame per point."""
    known = [file for file in files if not file.trouble]
    if OPTION in source.options or not known or any(len(file.shape) < 2 for file in known):
        return Axes(files)
    if said := _points_last(known, scan):
        return Axes(files, said)
    points = sum(file.shape[0] * file.shape[1] for file in known)
    if sum(file.frames for file in known) >= scan.points or points != scan.planned or len(known) < len(files):
        return Axes(files)
    first, raster = known[0], (scan.planned // scan.width, scan.width)
    if len(known) == 1 and first.shape[:2] == raster and scan.planned > scan.width:
        return Axes([_stack(first)], "" if closed else f"{first.path} may still grow, or be a stack of {raster[0]} lines")
    if not closed:
        return Axes(files)
    shape = " x ".join(map(str, first.shape))
    return Axes(
        files,
        f"{first.path} holds an array of {shape}, and the scan has {scan.planned} points: say in source.options whether its "
        'first axis is the frame, as in (frame, detector, channel): point_axes: "1"; or its first two are line and column: "2"',
    )


def _points_last(files: Sequence[FileFact], scan: ScanPoints) -> str:
    """Say that the scan's lines and columns are the last axes of the only file, and its frames no points; "" if they are not."""
    first, raster = files[0], (scan.planned // max(1, scan.width), scan.width)
    if len(files) > 1 or len(first.shape) < 3 or first.shape[-2:] != raster or scan.planned <= scan.width:
        return ""
    if first.frames in (scan.points, scan.planned) or first.shape[:2] == raster:
        return ""
    return (
        f"{first.path} holds an array of {' x '.join(map(str, first.shape))}, of which the last two axes are the lines and "
        "columns of the scan: this looks like channels first, as in MAPS files (format: maps); transpose it, or say in "
        'source.options point_axes: "1" if its first axis is the frame after all'
    )


def _stack(file: FileFact) -> FileFact:
    columns = file.shape[1]
    missing = tuple(Missing(lost.first * columns, lost.last * columns, lost.why) for lost in file.missing)
    return replace(file, frames=file.frames * columns, missing=missing, options={**file.options, OPTION: "2"})
