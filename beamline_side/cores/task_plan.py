"""The task plan: from the files of a scan to tasks, blocks of indexes.

Theory: the files of a pipeline, in the order of their names, are one long sequence of frames; frame i of it is acquisition index
i. A block is `frames_per_task` indexes long. `plan` is a function of what is known, without state: called again with more files,
or after a restart, it returns the same tasks and more; submitting a task twice changes nothing. Files are numbered without gaps,
from `source.first` on: a missing number between two others, or before the first (`beamtide.files.row`), is waited for, so that no
frame gets a wrong index. Once nothing more will come (`closed`), every index without a frame gets a void task that says why, so
that each index of the scan ends in a verdict and no component has to guess. Blocks are those of the scan as it was planned; a
block that reaches beyond an early end stays whole if its frames exist, since it may have been submitted before the end was known.
With `source.begin_with` a scan is one task, which is made as soon as so many frames exist: its worker takes the rest while they
are measured.

Clock policy: none; the caller decides when a scan is closed.
Invariants: tasks do not overlap; the tasks of a closed plan together are `[0, points)` and at most the rest of its last block; a
plan of fewer files, or of the running scan, is a prefix of a later one (of a task that begins early, only the inputs grow).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from beamtide.config.models import PipelineConfig, SourceConfig
from beamtide.files.pieces import NO_FILE, Piece, input_files, pieces_of, runs
from beamtide.files.row import FileFact, with_gaps
from beamtide.messages.base import Digest, PipelineName, ScanId
from beamtide.messages.metadata import ScanState
from beamtide.messages.tasks import Need, Task
from beamtide.task_id import task_id


def plan(state: ScanState, pipeline: PipelineConfig, settings: Digest, files: Sequence[FileFact], *, closed: bool) -> list[Task]:
    """Return all tasks that are certain at present. `files` are in the order of their names."""
    if pipeline.source.kind == "scan":
        return [_scan_task(state, pipeline, settings)] if closed and state.points else []
    row = with_gaps(files, pipeline.source, state.points, closed=closed)
    if pipeline.source.begin_with is not None:
        return _early_task(state, pipeline, settings, row, closed=closed)
    certain = row if closed or pipeline.source.frames_per_task != "file" else _without_unfinished(row, state.points)
    end = _end(state, pipeline, certain)
    pieces = list(pieces_of(certain, end, closed=closed))
    whole = pieces[-1].stop if pieces else 0
    tasks = []
    for start, stop in _blocks(state, pipeline, certain, end):
        if stop > whole and not closed:
            break
        tasks += [_task(state.scan.id, pipeline, settings, part) for part in runs(pieces, start, stop)]
    return tasks


def _early_task(  # the same as for `plan`, and the row
    state: ScanState, pipeline: PipelineConfig, settings: Digest, row: Sequence[FileFact], *, closed: bool
) -> list[Task]:
    """Return the one task of all indexes that were planned, as soon as enough frames exist: its worker takes the rest later."""
    planned, enough = max(state.points, math.prod(state.scan.shape)), pipeline.source.begin_with or 0
    there = list(pieces_of(row, planned, closed=False))
    if not closed and (not there or there[-1].stop < min(enough, planned)):
        return []
    readable = [piece for piece in pieces_of(row, state.points, closed=True) if not piece.trouble] if closed else there
    if not readable:
        return void_plan(state, pipeline, settings, NO_FILE)
    task = _task(state.scan.id, pipeline, settings, readable)
    needs = tuple(msgspec.structs.replace(need, upto=min(enough, state.points)) for need in task.needs)
    whole = task_id(task.scan, pipeline.pipeline, settings, 0, planned)
    return [msgspec.structs.replace(task, id=whole, start=0, stop=planned, needs=needs)]


def surplus(state: ScanState, source: SourceConfig, files: Sequence[FileFact]) -> str:
    """Say how many frames lie beyond the last point of the scan as it was planned; "" if none does."""
    planned = max(state.points, math.prod(state.scan.shape))
    beyond = _readable_to(with_gaps(files, source, state.points, closed=True)) - planned
    if beyond <= 0:
        return ""
    return (
        f"the files hold {beyond} frames more than the scan has points ({planned}); they are left out. If the detector "
        "did not just run on at the end but counted one trigger too many, later points are shifted: compare with the positions"
    )


def _readable_to(row: Sequence[FileFact]) -> int:
    """Return the index after the last readable frame."""
    typical = next((file.frames for file in row if not file.trouble and file.frames), 0)
    last_good = max((number for number, file in enumerate(row) if not file.trouble), default=-1)
    return sum(typical if file.trouble else file.frames for file in row[: last_good + 1])


def _end(state: ScanState, pipeline: PipelineConfig, files: Sequence[FileFact]) -> int:
    """Return where the last task ends: at the scan's end, or at the end of a complete block that reaches beyond it."""
    planned = math.prod(state.scan.shape)
    readable = next(reversed([*pieces_of(files, planned, closed=False)]), Piece(0, 0)).stop
    across = (stop for start, stop in _blocks(state, pipeline, files, planned) if start < state.points < stop <= readable)
    return next(across, state.points)


def _without_unfinished(files: Sequence[FileFact], points: int) -> Sequence[FileFact]:
    """Leave out a last file that may still grow: it has fewer frames than the first, or it is the only one."""
    if not files or sum(file.frames for file in files) >= points:
        return files
    if len(files) > 1 and files[-1].frames >= files[0].frames > 0:
        return files
    return files[:-1]


def bound(task: Task, upstream: Mapping[str, Digest]) -> Task:
    """Return the task with the settings digest of the other pipeline in each of its needs."""
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
    return [_task(state.scan.id, pipeline, settings, part) for start, stop in blocks for part in runs(whole, start, stop)]


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
    length = size if isinstance(size, int) else state.scan.shape[-1] if size == "line" else max(1, points)
    while at < points:
        yield at, min(points, at + length)
        at += length


def _task(scan: ScanId, pipeline: PipelineConfig, settings: Digest, parts: Sequence[Piece]) -> Task:
    start, stop = parts[0].start, parts[-1].stop
    wanted = [text.partition("/") for text in pipeline.inputs]
    return Task(
        id=task_id(scan, pipeline.pipeline, settings, start, stop),
        scan=scan,
        pipeline=PipelineName(pipeline.pipeline),
        modality=pipeline.modality,
        start=start,
        stop=stop,
        inputs=input_files(parts, pipeline.source),
        settings=settings,
        needs=tuple(Need(pipeline=PipelineName(other), dataset=dataset, upto=stop) for other, _, dataset in wanted),
        void=parts[0].trouble,
    )
