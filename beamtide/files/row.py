"""The files of one pipeline and scan in the order of their numbers, with a placeholder for each missing file.

Theory: detectors number their files one by one. A missing number between two others is a file that has not come yet, or never
will. The first number is `source.first`, or 0 or 1. If the first file has a higher number, either files are missing at the
beginning, or the detector counts on from the scan before. That is known when the scan has ended: then the number of missing
frames says how many files are missing. Until then no file has a certain index. Scans that are stitched together have a sequence
of files each.

Clock policy: none. Invariant: files keep their order.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from beamtide.config.models import SourceConfig


@dataclass(frozen=True, slots=True)
class FileFact:
    """What is known of one file: its frames so far, or why it cannot be read (yet)."""

    path: str
    """Relative to the raw root."""
    frames: int = 0
    trouble: str = ""
    part: tuple[int, int] = (0, 1)
    """Which of so many scans that are stitched together it belongs to."""


def natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key by which file 10 comes after file 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def with_gaps(files: Sequence[FileFact], source: SourceConfig, points: int, *, closed: bool) -> list[FileFact]:
    """Return the files with an unreadable one for each number that is missing between two that are there, or before them."""
    found = []
    for part, one in _parts(files):
        gapless = _without_gaps(one, source, points // part[1], closed=closed)
        found += [file if file.part == part else replace(file, part=part) for file in gapless]
    return found


def _parts(files: Sequence[FileFact]) -> list[tuple[tuple[int, int], list[FileFact]]]:
    """Return the files of each scan of a stitched one; all files of any other scan."""
    return [(part, list(one)) for part, one in itertools.groupby(files, lambda file: file.part)]


def _without_gaps(files: Sequence[FileFact], source: SourceConfig, points: int, *, closed: bool) -> list[FileFact]:
    row: list[FileFact] = []
    for file in files:
        if row:
            row += [_missing(path) for path in _between(row[-1].path, file.path)]
        row.append(file)
    return [*_before(files, row, source, points, closed=closed), *row]


def late_start(files: Sequence[FileFact], source: SourceConfig) -> str:
    """Say why the indexes of the files are not certain yet, if the first file may be missing; "" if they are."""
    late = next((one[0] for _, one in _parts(files) if _begins_late(one, source)), None)
    if source.first is not None or late is None:
        return ""
    return (
        f"the first file is {late.path}: if its number should be 0 or 1, files are missing before it. This is known when the "
        "scan ends, or at once if the pipeline file has source.first"
    )


def _before(
    files: Sequence[FileFact], row: Sequence[FileFact], source: SourceConfig, points: int, *, closed: bool
) -> list[FileFact]:
    """Return what is missing before the first file that is there."""
    if not _begins_late(files, source):
        return []
    before, number, after = _numbered(files[0].path)
    if source.first is None:
        if not closed:
            return [FileFact(files[0].path, trouble=late_start(files, source))]
        typical = next((file.frames for file in files if file.frames), 0)
        lacking = points - sum(typical if file.trouble else file.frames for file in row)
        first = int(number) - (min(int(number), max(0, lacking) // typical) if typical and len(files) > 1 else 0)
    else:
        first = source.first
    return [_missing(f"{before}{missing:0{len(number)}d}{after}") for missing in range(first, int(number))]


def _begins_late(files: Sequence[FileFact], source: SourceConfig) -> bool:
    """Whether the files are numbered in a part of their names that the pattern leaves open, from a number above 1."""
    literal = re.split(r"[*?\]]", source.match)[-1]
    if not files or literal == source.match:
        return False
    _, number, after = _numbered(files[0].path)
    if not number or not after.endswith(literal) or int(number) <= (1 if source.first is None else source.first):
        return False
    counted = number.startswith("0") if len(files) == 1 else _same_but_number(files[0].path, files[1].path) is not None
    return counted or source.first is not None


def _missing(path: str) -> FileFact:
    return FileFact(path, trouble=f"the file {path} never came")


def _same_but_number(one: str, other: str) -> tuple[str, str, str, str] | None:
    """Return what stands before the number that counts, both numbers, and what stands after; None if more than that differs."""
    (before, low, after), (other_before, high, other_after) = _numbered(one), _numbered(other)
    return (before, low, high, after) if low and high and (before, after) == (other_before, other_after) else None


def _between(one: str, other: str) -> list[str]:
    if (found := _same_but_number(one, other)) is None:
        return []
    before, low, high, after = found
    return [f"{before}{number:0{len(low)}d}{after}" for number in range(int(low) + 1, int(high))]


def _numbered(path: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the last number of a name without its ending."""
    stem, dot, ending = path.rpartition(".")
    found = re.fullmatch(r"(.*?)(\d*)(\D*)", stem if dot else ending, re.DOTALL)
    before, number, after = found.groups() if found else (path, "", "")
    return before, number, after + dot + (ending if dot else "")
