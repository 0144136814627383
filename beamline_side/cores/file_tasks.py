"""From files to tasks: which indexes of a scan lie in which file, cut into blocks.

Theory: the files of a pipeline, in the order of their names, are one long row of frames; frame i of that row is acquisition
index i. A block is `frames_per_task` indexes long. `plan` is a function of what is known, not a machine: called again with more
files, or after a restart, it says the same tasks again and more of them; submitting a task twice changes nothing.
Files are numbered without gaps, from `source.first` on: a number that is missing between two others, or before the first
(`file_row`), is waited for, so that no frame slips to an earlier index. Once nothing more will come (`closed`), every index
without a frame is covered by a void task that says why, so that each index of the scan ends in a verdict and nobody downstream
ever has to guess. Blocks are those of the scan as it was planned; one that reaches over an early end stays whole if its frames
are there, since it may have been submitted before the end was known.

Clock policy: none; whoever calls decides when a scan is closed.
Invariants: tasks do not overlap; a closed plan covers `[0, points)`, and beyond it at most the rest of that block; a plan of
fewer files, or of the running scan, is a prefix of a later one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from beamline_side.cores.file_row import FileFact, with_gaps
from beamtide.config import PipelineConfig, Source
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.metadata import ScanState
from beamtide.messages.tasks import InputFile, Need, Task

NO_FILE = "no file came for them"


@dataclass(frozen=True, slots=True)
class Piece:
    """Indexes `[start, stop)` in one file from frame `first` on; or, with `trouble`, indexes that nobody can read."""

    start: int
    stop: int
    path: str = ""
    first: int = 0
    trouble: str = ""


def plan(state: ScanState, pipeline: PipelineConfig, settings: Digest, files: Sequence[FileFact], *, closed: bool) -> list[Task]:
    """Return all tasks that are certain by now. `files` are in the order of their names."""
    if pipeline.source.kind == "scan":
        return [_scan_task(state, pipeline, settings)] if closed and state.points else []
    row = with_gaps(files, pipeline.source, state.points, closed=closed)
    certain = row if closed or pipeline.source.frames_per_task != "file" else _without_growing(row, state.points)
    end = _end(state, pipeline, certain)
    pieces = list(_pieces(certain, end, closed=closed))
    whole = pieces[-1].stop if pieces else 0
    tasks = []
    for start, stop in _blocks(state, pipeline, certain, end):
        if stop > whole and not closed:
            break
        tasks += [_task(state.scan.id, pipeline, settings, part) for part in _runs(pieces, start, stop)]
    return tasks


def surplus(state: ScanState, source: Source, files: Sequence[FileFact]) -> str:
    """Say how many frames lie beyond the last point of the scan as it was planned; "" if none does."""
    planned = max(state.points, math.prod(state.scan.shape))
    beyond = _readable_to(with_gaps(files, source, state.points, closed=True)) - planned
    if beyond <= 0:
        return ""
    return (
        f"the files hold {beyond} frames more than the scan has points ({planned}); they are left out; if that is no detector "
        "that ran on at the end but a trigger too many, every point behind it is in the wrong place: compare with the positions"
    )


def _readable_to(row: Sequence[FileFact]) -> int:
    """Return behind which index the last readable frame of the row lies."""
    typical = next((file.frames for file in row if not file.trouble and file.frames), 0)
    last_good = max((number for number, file in enumerate(row) if not file.trouble), default=-1)
    return sum(typical if file.trouble else file.frames for file in row[: last_good + 1])


def _end(state: ScanState, pipeline: PipelineConfig, files: Sequence[FileFact]) -> int:
    """Return where the last task ends: at the scan's end, or at that of a block with all its frames that reaches over it."""
    planned = math.prod(state.scan.shape)
    readable = next(reversed([*_pieces(files, planned, closed=False)]), Piece(0, 0)).stop
    across = (stop for start, stop in _blocks(state, pipeline, files, planned) if start < state.points < stop <= readable)
    return next(across, state.points)


def _without_growing(files: Sequence[FileFact], points: int) -> Sequence[FileFact]:
    """Leave out a last file that may still grow: it has fewer frames than the first, or there is no other to compare it with."""
    if not files or sum(file.frames for file in files) >= points:
        return files
    if len(files) > 1 and files[-1].frames >= files[0].frames > 0:
        return files
    return files[:-1]


def bound(task: Task, upstream: Mapping[str, Digest]) -> Task:
    """Return the task with each of its needs bound to the settings of the pipeline that it takes datasets from."""
    needs = tuple(msgspec.structs.replace(need, settings=upstream.get(need.pipeline, need.settings)) for need in task.needs)
    return msgspec.structs.replace(task, needs=needs)


def _scan_task(state: ScanState, pipeline: PipelineConfig, settings: Digest) -> Task:
    """Return the one task of a pipeline whose source is the scan: all its indexes, from other pipelines' datasets."""
    task = _task(state.scan.id, pipeline, settings, [Piece(0, state.points, trouble="-")])
    return msgspec.structs.replace(task, void="", shape=state.scan.shape, snake=state.scan.snake)


def void_plan(state: ScanState, pipeline: PipelineConfig, settings: Digest, reason: str) -> list[Task]:
    """Return a closed plan in which nothing can be computed, for one reason."""
    whole = [Piece(0, state.points, trouble=reason)]
    blocks = _blocks(state, pipeline, (), state.points)
    return [_task(state.scan.id, pipeline, settings, part) for start, stop in blocks for part in _runs(whole, start, stop)]


def _pieces(files: Sequence[FileFact], points: int, *, closed: bool) -> Iterator[Piece]:
    """Lay the files out over the indexes; what cannot be read stops the row, or is a gap once the scan is closed."""
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


def _blocks(state: ScanState, pipeline: PipelineConfig, files: Sequence[FileFact], points: int) -> Iterator[tuple[int, int]]:
    """Cut `[0, points)` into the ranges of tasks."""
    size = pipeline.source.frames_per_task
    at = 0
    if size == "file":
        for file in files:
            if file.trouble:
                break
            stop = min(points, at + file.frames)
            if stop > at:
                yield at, stop
            at = stop
    length = size if isinstance(size, int) else state.scan.shape[-1]
    while at < points:
        yield at, min(points, at + length)
        at += length


def _runs(pieces: Sequence[Piece], start: int, stop: int) -> Iterator[list[Piece]]:
    """Return the parts of a block: readable pieces that touch go together, unreadable ones stand alone."""
    together: list[Piece] = []
    for piece in pieces:
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first >= last:
            continue
        part = Piece(first, last, piece.path, piece.first + first - piece.start, piece.trouble)
        if piece.trouble:
            if together:
                yield together
            yield [part]
            together = []
        else:
            together.append(part)
    if together:
        yield together


def _task(scan: ScanId, pipeline: PipelineConfig, settings: Digest, parts: Sequence[Piece]) -> Task:
    start, stop, source = parts[0].start, parts[-1].stop, pipeline.source
    inputs = tuple(
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
    wanted = [text.partition("/") for text in pipeline.inputs]
    return Task(
        id=TaskId(f"{scan}/{pipeline.pipeline}/{settings[:8]}/{start:06d}-{stop:06d}"),
        scan=scan,
        pipeline=PipelineName(pipeline.pipeline),
        modality=pipeline.modality,
        start=start,
        stop=stop,
        inputs=inputs,
        settings=settings,
        needs=tuple(Need(pipeline=PipelineName(other), dataset=dataset, upto=stop) for other, _, dataset in wanted),
        void=parts[0].trouble,
    )
