"""The files of one pipeline and scan in the order of their numbers, with a placeholder for each missing file.

Theory: detectors number their files one by one. A missing number between two others is a file that has not come yet, or never
will. The first number is `source.first`, or 0 or 1. If the first file has a higher number, either files are missing at the
beginning, or the detector counts on from the scan before. That is known when the scan has ended: then the number of missing
frames says how many files are missing. Until then no file has a certain index. Scans that are stitched together have a sequence
of files each.

Some count in their names the frames instead: scan_000000, scan_000100, scan_000200 hold 100 each. This is so if all numbers are
that far apart, or multiples of it, and files that were numbered one by one would be more than the scan needs. If both fit, nobody
can tell which files are missing.

Clock policy: none. Invariant: files keep their order.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from beamtide.config.models import SourceConfig
from beamtide.formats.base import Missing
from beamtide.messages.tasks import FileStamp

MOST_GAPS = 4
"""Names that skip so many times more numbers than a scan needs files count something else."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """What is known of one file: its frames so far, or why it cannot be read (yet)."""

    path: str
    """Relative to the raw root."""
    frames: int = 0
    trouble: str = ""
    part: tuple[int, int] = (0, 1)
    """Which of so many scans that are stitched together it belongs to."""
    missing: tuple[Missing, ...] = ()
    """Frames that were laid out and are not there (yet)."""
    count: int | None = None
    """The detector's own count, over all files and from 0, of frame 0."""
    begin: int = 0
    """The first frame that is its own, where the count begins behind 0."""
    shape: tuple[int, ...] = ()
    """The axes that all its arrays share, where the first two may be line and column."""
    cut: str = ""
    """Why frames are lost behind its last one, nobody knows how many."""
    exact: str = ""
    """Why nobody knows which of its frames is which unless there are as many as there should be."""
    options: dict[str, str] = field(default_factory=dict)
    """For the format, beyond those of the pipeline file."""
    wrong: bool = False
    """Whether no waiting helps: the trouble is not that the file may be incomplete."""
    stamp: FileStamp | None = field(default=None, compare=False)
    """What the file was when this was found out."""


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
    step = steps(files, source, points)[0]
    gaps = [_between(one.path, other.path, step) for one, other in itertools.pairwise(files)]
    typical = next((file.frames for file in files if file.frames), 1)
    too_many = sum(map(len, gaps)) + len(files) > MOST_GAPS * -(-points // typical) + MOST_GAPS
    if len(files) > 1 and (too_many or not counts_files(files)):
        return list(files)  # times of day, or numbers that count something else
    row = list(files[:1])
    for file, gap in zip(files[1:], gaps, strict=True):
        row += [_missing(_named(row[-1].path, file.path, number)) for number in gap]
        row.append(file)
    return [*_before(files, row, source, points, closed=closed), *row]


def steps(files: Sequence[FileFact], source: SourceConfig, points: int) -> tuple[int, ...]:
    """Return by how much the numbers of two files may differ that follow each other: 1, or as many as a file has frames."""
    frames = [file.frames for file in files if not file.trouble]
    full, counters = max(frames, default=0), [_counter(one.path, other.path) for one, other in itertools.pairwise(files)]
    if source.frames_per_file == "any" or full < 2 or len(files) < 2:
        return (1,)
    if any(found is None or (found[2] - found[1]) % full for found in counters):
        return (1,)
    if frames.count(full) < 2:  # one whole file shows it only where, one by one, the last would lie behind the scan
        last = counters[-1][2] if counters[-1] else 0
        return (full,) if source.first is not None and (last - source.first) * full >= points else (1,)
    apart, needed = sum(found[2] - found[1] for found in counters if found), -(-points // full)
    if apart >= points:
        return (1,)
    return (1, full) if apart + 1 <= needed + needed // 4 else (full,)


def counts_files(files: Sequence[FileFact]) -> bool:
    """Whether the names of the files count them, in one place of the names: then one that is missing between them is seen."""
    counters = [_counter(one.path, other.path) for one, other in itertools.pairwise(files)]
    return len({counter and counter[0] for counter in counters}) == 1 and None not in counters


def counts_through(files: Sequence[FileFact]) -> bool:
    """Whether the names of a row, with those that are missing, count one by one, or by the frames of a file, without a gap."""
    found = [_counter(one.path, other.path) for one, other in itertools.pairwise(files)]
    apart = {counter[2] - counter[1] for counter in found if counter is not None}
    return counts_files(files) and (apart <= {1} or apart == {max(file.frames for file in files)})


def unsure_beginning(files: Sequence[FileFact], source: SourceConfig, points: int) -> str:
    """Say why nobody can tell which file is the first of a scan that is over; "" if that is clear.

    Clear is: nothing is missing; or what is missing are the files from 0, or from 1, to the first that is there. That numbers
    begin with 1 and one file is missing may mean file 0, or one at the end.
    """
    if others := steps(files, source, points)[1:]:
        return (
            f"the numbers of {files[0].path} and the other files may count files, of which some are missing, or the frames in "
            f"them ({others[0]} each): nobody can tell which frames are missing; name the files by their own numbers"
        )
    if source.first is not None or len(files) < 2 or (counted := _first_number(files, source)) is None:
        return ""
    step = steps(files, source, points)[0]
    number, gaps = counted // step, (_between(one.path, other.path, step) for one, other in itertools.pairwise(files))
    count = len(files) + sum(map(len, gaps))
    lacking = -(-points // max(1, *(file.frames for file in files))) - count
    if number == 0 or lacking <= 0 or (lacking != 1 if number == 1 else lacking in (number, number - 1)):
        return ""
    before = _numbered_as(files, counted - step)
    return (
        f"of the files that the scan needs, {lacking} {'is' if lacking == 1 else 'are'} missing: before {files[0].path} (such as "
        f"{before}), or at the end; say source.first in the pipeline file, the number with which the "
        "files of a scan begin"
    )


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
    number, step = _first_number(files, source) or 0, steps(files, source, points)[0]
    if source.first is None:
        if not closed:
            return [FileFact(files[0].path, trouble=late_start(files, source))]
        lacking = max(0, -(-points // max(1, *(file.frames for file in files), 1)) - len(row))
        first = number - (step * min(number // step, lacking) if len(files) > 1 else 0)
    else:
        first = source.first
    return [_missing(_numbered_as(files, missing)) for missing in range(first, number, step)]


def _begins_late(files: Sequence[FileFact], source: SourceConfig) -> bool:
    """Whether files count up, in a part of their names that the pattern leaves open, and the count begins too high."""
    number = _first_number(files, source)
    return number is not None and number > (1 if source.first is None else source.first)


def _first_number(files: Sequence[FileFact], source: SourceConfig) -> int | None:
    """Return the number of the first file, if the names count files; a single one does if the pattern leaves its number open."""
    literal = re.split(r"[*?\]]", source.match)[-1]
    if not files or literal == source.match:
        return None
    if len(files) > 1:
        found = _counter(files[0].path, files[1].path)
        return found[1] if found and counts_files(files) else None
    number, after = _parts_of(files[0].path)[1:]
    counts = number and after.endswith(literal) and (number.startswith("0") or source.first is not None)
    return int(number) if counts else None


def _numbered_as(files: Sequence[FileFact], number: int) -> str:
    """Return the name of a file with another number."""
    if len(files) > 1:
        return _named(files[0].path, files[1].path, number)
    before, own, after = _parts_of(files[0].path)
    return f"{before}{number:0{len(own)}d}{after}"


def _missing(path: str) -> FileFact:
    return FileFact(path, trouble=f"the file {path} never came")


@functools.lru_cache(maxsize=1 << 16)
def _counter(one: str, other: str) -> tuple[int, int, int] | None:
    """Return which part of two names is a number that counts, and both numbers; None if more than one number differs."""
    ours, theirs = re.split(r"(\d+)", one), re.split(r"(\d+)", other)
    if len(ours) != len(theirs) or ours[::2] != theirs[::2]:
        return None
    differ = [at for at in range(1, len(ours), 2) if int(ours[at]) != int(theirs[at])]
    return (differ[0], int(ours[differ[0]]), int(theirs[differ[0]])) if len(differ) == 1 else None


def _between(one: str, other: str, step: int = 1) -> range:
    """Return the numbers that are missing between two names, where files that follow each other differ by `step`."""
    found = _counter(one, other)
    return range(0) if found is None else range(found[1] + step, found[2], step)


def _named(one: str, other: str, number: int) -> str:
    """Return a name like `one`, with another number where it differs from `other`."""
    parts, found = re.split(r"(\d+)", one), _counter(one, other)
    if found is not None and parts:
        parts[found[0]] = f"{number:0{len(parts[found[0]])}d}"
    return "".join(parts)


def _parts_of(path: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the last number of a name without its ending."""
    stem, dot, ending = path.rpartition(".")
    found = re.fullmatch(r"(.*?)(\d*)(\D*)", stem if dot else ending, re.DOTALL)
    before, number, after = found.groups() if found else (path, "", "")
    return before, number, after + dot + (ending if dot else "")
