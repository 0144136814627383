"""Which frame belongs to which index: decided here, for the source that makes tasks and for workers that look for the rest.

Theory: files of a scan hold frames one behind the other, and three ways of cutting a scan into files are in use: one file per
line, files of a fixed length, and one file for all. Nothing in a file says which; but as long as no file is short, all ways put a
frame at the same index, and where one is short (a trigger was lost, a writer died) they differ. So every way that is possible is
laid out, and what all of them agree on is certain. Possible is
- one file per line, if there are not more files than lines, and the longest holds about a line;
- files of a fixed length, that of the longest, if no more files are there than the scan needs;
- one behind the other, whatever their lengths, if that makes as many frames as the scan has points.
Of these, `source.frames_per_file` chooses one; otherwise, what they do not agree on is waited for while the scan runs, and
refused with a sentence when nothing more will come. A file that is short leaves a hole at its own end: which of its frames was
lost is not known. Where the detector counts its frames over all files, its count alone decides. Frames that are missing in a file
(never written) have their place, and so has a file that is missing (`row`).

Clock policy: none. Invariants: pieces follow each other without gap or overlap, from index 0 on; closed, they cover all points.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from beamtide.config.models import SourceConfig
from beamtide.files.pieces import NO_FILE, Piece, between
from beamtide.files.row import FileFact, counts_through, unsure_beginning, with_gaps
from beamtide.files.stacks import with_axes
from beamtide.files.ways import ScanPoints, is_unsettled, longest, untold, ways_of

UNCOUNTED = "by the detector's own count, no file holds these frames"


@dataclass(slots=True)
class Layout:
    """The files of a scan over its indexes."""

    pieces: list[Piece]
    starts: list[int]
    """Where the first frame of each file belongs that was laid out."""
    remarks: list[str]
    """What is odd about it, and not seen in a hole."""
    untold: bool = False
    """Whether nobody can tell where some frames belong."""

    @property
    def stop(self) -> int:
        """Up to which index it is certain."""
        return self.pieces[-1].stop if self.pieces else 0


def laid_out(files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig, *, closed: bool) -> Layout:
    """Lay the files (in their order) out over the indexes; what nobody can read stops it, or is a gap once the scan is closed.

    Scans that are stitched together have the same number of indexes each: what one lacks is no gap of the next.
    """
    parts, found = max((file.part[1] for file in files), default=1), Layout([], [], [])
    if scan.points % parts:
        trouble = f"{scan.points} points cannot be those of {parts} scans of the same size; say --shape"
        return Layout([Piece(0, scan.points, trouble=trouble)], [0], [])
    axes = with_axes(files, scan, source, closed=closed)
    if axes.trouble:
        return Layout([Piece(0, scan.points, trouble=axes.trouble)], [0], [], untold=True) if closed else found
    files = axes.files
    row = with_gaps(files, source, scan.points, closed=closed)
    share = ScanPoints(scan.points // parts, scan.planned // parts, scan.width)
    for part in range(parts):
        begin, own = part * share.points, [file for file in row if file.part[0] == part]
        raw = [file for file in files if file.part[0] == part]
        unsure = unsure_beginning(raw, source, share.points) if closed and not _counted(raw) else ""
        one = (
            Layout([Piece(0, share.points, trouble=unsure)], [0], [], True) if unsure else _one(own, share, source, closed=closed)
        )
        if parts == 1:
            return one
        found.pieces += [replace(piece, start=begin + piece.start, stop=begin + piece.stop) for piece in one.pieces]
        found.starts += [begin + start for start in one.starts]
        found.remarks += one.remarks
        found.untold |= one.untold
        if one.stop < share.points:
            break
    return found


def _one(files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig, *, closed: bool) -> Layout:
    if _counted(files):
        return _by_count(files, scan, closed=closed)
    files = [_fitting(file, files, scan, source) for file in files]
    ways = ways_of(files, scan, source, closed=closed)
    laid = [_in_slots(files, slot, scan, closed=closed) for slot in ways]
    first = laid[0] if laid else _in_slots(files, None, scan, closed=closed)
    agreed = min((_same_until(first.pieces, other.pieces) for other in laid[1:]), default=first.stop)
    if not closed and is_unsettled(files, scan, source):
        agreed = min(agreed, files[0].frames)
    if not laid:  # none explains the files: what lies before the first short one is certain
        others = (_in_slots(files, slot, scan, closed=closed) for slot in (longest(files), scan.width) if slot)
        agreed = min(_same_until(first.pieces, other.pieces) for other in others) if counts_through(files) else 0
    if laid and all(agreed == other.stop for other in laid):
        return first
    pieces = list(between(first.pieces, 0, agreed))
    if closed:
        pieces.append(Piece(agreed, scan.points, trouble=untold(files, scan)))
    return Layout(pieces, [start for start in first.starts if start < agreed], [], untold=closed)


def _in_slots(files: Sequence[FileFact], slot: int | None, scan: ScanPoints, *, closed: bool) -> Layout:
    """Lay files out that are meant to hold `slot` frames each (None: as many as they do)."""
    found, at = Layout([], [], []), 0
    typical = next((file.frames for file in files if not file.trouble and file.frames), 0)
    last_good = max((number for number, file in enumerate(files) if not file.trouble), default=-1)
    over = _over(files, slot) if slot else 0
    for number, file in enumerate(files):
        if at >= scan.points:
            break
        if file.trouble and not closed:
            return found
        length = file.frames if slot is None else slot
        if file.trouble:
            length = (slot or typical) if number < last_good else scan.points - at
        end = min(scan.points, at + length)
        if end > at:
            found.starts.append(at)
            if not _add(found.pieces, file, (at, end), closed=closed or number < over):
                return found
        if slot and file.frames > slot and not file.trouble:
            found.remarks.append(f"{file.path} holds {file.frames} frames instead of {slot}; the last are left out")
        at += length
        if slot is None and file.cut:  # where the next file begins depends on how many were lost
            break
    if closed and at < scan.points:
        found.pieces.append(Piece(at, scan.points, trouble=_lost_behind(files) or NO_FILE))
    return found


def _fitting(file: FileFact, files: Sequence[FileFact], scan: ScanPoints, source: SourceConfig) -> FileFact:
    """Return a file that is of use only if it holds as many frames as it should: unreadable if it does not."""
    if not file.exact or file.trouble:
        return file
    said = source.frames_per_file
    if said == "line" or (said == "auto" and len(files) > 1):
        room = scan.width
    else:
        room = said if isinstance(said, int) else scan.points - sum(other.frames for other in files if other is not file)
    if file.frames == room:
        return file
    return replace(file, trouble=f"{file.path} holds {file.frames} exposures and should hold {room}: {file.exact}")


def _lost_behind(files: Sequence[FileFact]) -> str:
    """Say why frames are missing behind the last of a file, if one says so."""
    return next((f"{file.path}: {file.cut}" for file in files if file.cut), "")


def _over(files: Sequence[FileFact], slot: int) -> int:
    """Return how many files will not grow any more: a later one is full, or two later ones are there."""
    good = [number for number, file in enumerate(files) if not file.trouble]
    full = max((number for number in good if files[number].frames >= slot), default=0)
    return max(full, good[-2] if len(good) > 1 else 0)


def _add(pieces: list[Piece], file: FileFact, where: tuple[int, int], *, closed: bool) -> bool:
    """Add a file to `[start, stop)`: its frames, and what is missing; False where it is not known yet what comes."""
    start, stop = where
    if file.trouble:
        pieces.append(Piece(start, stop, trouble=file.trouble))
        return True
    at, held = start, min(stop, start + file.frames)
    for lost in (*file.missing, None):
        first, last = (start + lost.first, start + lost.last) if lost else (held, held)
        if min(first, held) > at:
            pieces.append(Piece(at, min(first, held), file.path, at - start, options=file.options, stamp=file.stamp))
        if first < min(last, held):
            if not closed:
                return False
            pieces.append(Piece(first, min(last, held), trouble=lost.why if lost else ""))
        at = max(at, min(last, held))
    if held < stop:
        if not closed:
            return False
        why = (
            _lost_behind([file])
            or f"{file.path} holds {file.frames} frames instead of {stop - start}: which of them was lost is not known"
        )
        pieces.append(Piece(held, stop, trouble=why))
    return True


def _counted(files: Sequence[FileFact]) -> bool:
    """Whether the detector counts its frames over all files: each goes on behind the one before."""
    good = [file for file in files if not file.trouble and file.frames > file.begin]
    if not good or any(file.count is None for file in good):
        return False
    ranges = [((file.count or 0) + file.begin, (file.count or 0) + file.frames) for file in good]
    return all(one[1] <= other[0] for one, other in itertools.pairwise(ranges)) and (len(good) > 1 or bool(good[0].count))


def _by_count(files: Sequence[FileFact], scan: ScanPoints, *, closed: bool) -> Layout:
    """Lay files out by the detector's own count."""
    found, why = Layout([], [], []), ""
    for file in files:
        if file.trouble:
            if not closed:
                return found
            why = why or file.trouble
            continue
        origin = file.count or 0
        begin, stop = origin + file.begin, min(scan.points, origin + file.frames)
        if begin >= min(stop, scan.points):
            continue
        if begin > found.stop:
            if not closed:
                return found
            found.pieces.append(
                Piece(found.stop, begin, trouble=why or "by the detector's own count, no file holds these frames")
            )
        own: list[Piece] = []
        file = replace(file, missing=tuple(lost for lost in file.missing if lost.last > file.begin))
        known = _add(own, file, (origin, stop), closed=closed)
        found.starts.append(begin)
        found.pieces += between(own, begin, stop)
        why = ""
        if not known:
            return found
    if closed and found.stop < scan.points:
        found.pieces.append(Piece(found.stop, scan.points, trouble=why or _lost_behind(files) or NO_FILE))
    return found


def _same_until(ours: Sequence[Piece], theirs: Sequence[Piece]) -> int:
    """Return the index up to which two layouts are the same."""
    at = 0
    for one in ours:
        for other in between(theirs, one.start, one.stop):
            same = (other.path, bool(other.trouble)) == (one.path, bool(one.trouble))
            if other.start != at or not same or (one.path and one.first + at - one.start != other.first):
                return at
            at = other.stop
        if at < one.stop:
            return at
    return at
