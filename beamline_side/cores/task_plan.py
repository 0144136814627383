"""The task plan: from the files of a scan to tasks, blocks of indexes.

Theory: `files.layout` decides which frame belongs to which index; here the indexes are cut into blocks of `frames_per_task`.
`plan` is a function of what is known, not a machine: called again with more files, or after a restart, it says the same tasks
again and more of them; submitting a task twice changes nothing. Once nothing more will come (`closed`), every index without a
frame is covered by a void task that says why, so that each index of the scan ends in a verdict and nobody downstream ever has to
guess. Blocks are those of the scan as it was planned; one that reaches over an early end stays whole if its frames are there,
since it may have been submitted before the end was known. With `source.begin_with` a scan is one task, which is there as soon as
so many frames are: its worker looks for the rest itself.

Clock policy: none; the caller decides when a scan is closed.
Invariants: tasks do not overlap; the tasks of a closed plan together are `[0, points)` and at most the rest of its last block; a
plan of fewer files, or of the running scan, is a prefix of a later one (of a task that begins early, only the inputs grow).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from beamtide.config.models import PipelineConfig, SourceConfig
from beamtide.files.layout import Layout, laid_out
from beamtide.files.pieces import NO_FILE, Piece, input_files, moved, runs
from beamtide.files.row import FileFact
from beamtide.files.ways import ScanPoints
from beamtide.messages.base import Digest, PipelineName, ScanId
from beamtide.messages.metadata import ScanState
from beamtide.messages.tasks import Need, Task
from beamtide.task_id import task_id


def plan(state: ScanState, pipeline: PipelineConfig, settings: Digest, files: Sequence[FileFact], *, closed: bool) -> list[Task]:
    """Return all tasks that are certain at present. `files` are in the order of their names."""
    if pipeline.source.kind == "scan":
        return [_scan_task(state, pipeline, settings)] if closed and state.points else []
    if pipeline.source.begin_with is not None:
        return _early_task(state, pipeline, settings, files, closed=closed)
    end = _end(state, pipeline, files)
    found = _laid(state, pipeline.source, files, closed=closed, points=end)
    whole = found.stop
    if not closed and pipeline.source.frames_per_task == "file":
        whole = _without_unfinished(files, found, end)
    tasks = []
    for start, stop in _blocks(state, pipeline, found.starts, end):
        if stop > whole and not closed:
            break
        tasks += [_task(state.scan.id, pipeline, settings, part) for part in runs(found.pieces, start, stop)]
    return tasks


def _laid(state: ScanState, source: SourceConfig, files: Sequence[FileFact], *, closed: bool, points: int) -> Layout:
    """Return which frame belongs to which of so many indexes."""
    return laid_out(files, ScanPoints.of(points, state.scan.shape), source, closed=closed)


def _early_task(  # the same as for `plan`
    state: ScanState, pipeline: PipelineConfig, settings: Digest, files: Sequence[FileFact], *, closed: bool
) -> list[Task]:
    """Return the one task of all indexes that were planned, as soon as enough frames exist: its worker takes the rest later."""
    planned, enough = max(state.points, math.prod(state.scan.shape)), pipeline.source.begin_with or 0
    there = _laid(state, pipeline.source, files, closed=False, points=planned)
    if not closed and there.stop < min(enough, planned):
        return []
    known = _laid(state, pipeline.source, files, closed=True, points=state.points) if closed else there
    readable = [piece for piece in known.pieces if not piece.trouble]
    if not readable:
        return void_plan(state, pipeline, settings, known.pieces[0].trouble if known.pieces else NO_FILE)
    task = _task(state.scan.id, pipeline, settings, readable)
    needs = tuple(msgspec.structs.replace(need, upto=min(enough, state.points)) for need in task.needs)
    whole = task_id(task.scan, pipeline.pipeline, settings, 0, planned)
    return [msgspec.structs.replace(task, id=whole, start=0, stop=planned, needs=needs)]


def remarks(state: ScanState, source: SourceConfig, files: Sequence[FileFact]) -> str:
    """Say what is odd about the files of a scan that is over, and is not seen in a hole; "" if nothing is."""
    planned = max(state.points, math.prod(state.scan.shape))
    found = _laid(state, source, files, closed=True, points=planned)
    if found.remarks:
        more = f" (and {len(found.remarks) - 1} files more)" if len(found.remarks) > 1 else ""
        return f"{found.remarks[0]}{more}; if that is a trigger too many, the points behind it are in the wrong place"
    if found.untold:
        return ""
    missing = sum(lost.last - lost.first for file in files for lost in file.missing if lost.first >= file.begin)
    beyond = sum(file.frames - file.begin for file in files) - missing
    beyond -= sum(piece.stop - piece.start for piece in found.pieces if piece.path)
    if beyond <= 0:
        return ""
    return (
        f"the files hold {beyond} frames more than the scan has points ({planned}); they are left out. If the detector "
        "did not just run on at the end but counted one trigger too many, later points are shifted: compare with the positions"
    )


def _end(state: ScanState, pipeline: PipelineConfig, files: Sequence[FileFact]) -> int:
    """Return where the last task ends: at the scan's end, or at the end of a complete block that reaches beyond it."""
    planned = math.prod(state.scan.shape)
    found = _laid(state, pipeline.source, files, closed=False, points=planned)
    blocks = _blocks(state, pipeline, found.starts, planned)
    return next((stop for start, stop in blocks if start < state.points < stop <= found.stop), state.points)


def _without_unfinished(files: Sequence[FileFact], found: Layout, points: int) -> int:
    """Return where the last file begins, if it may still grow: it has fewer frames than the first, or is the only one."""
    if not files or found.stop >= points or (len(files) > 1 and files[-1].frames >= files[0].frames > 0):
        return found.stop
    return found.starts[-1] if len(found.starts) >= len(files) else found.stop


def origins(task: Task) -> Iterator[tuple[str, int]]:
    """Yield the files of a task, each with the index to which its frame 0 belongs."""
    at = task.start
    for part in task.inputs:
        yield part.path, at - part.first
        at += part.last - part.first


def contradiction(tasks: Sequence[Task], known: Mapping[str, int]) -> str:
    """Say which file belongs elsewhere now than when tasks were made of it (file -> index of its frame 0); "" if none does."""
    return moved((one for task in tasks for one in origins(task)), known)


def bound(task: Task, upstream: Mapping[str, Digest]) -> Task:
    """Return the task with the settings digest of the other pipeline in each of its needs."""
    needs = tuple(msgspec.structs.replace(need, settings=upstream.get(need.pipeline, need.settings)) for need in task.needs)
    return msgspec.structs.replace(task, needs=needs)


def _scan_task(state: ScanState, pipeline: PipelineConfig, settings: Digest) -> Task:
    """Return the one task of a pipeline whose source is the scan: all its indexes, from other pipelines' datasets."""
    task = _task(state.scan.id, pipeline, settings, [Piece(0, state.points, trouble="-")])
    snake = state.scan.snake if pipeline.snake is None else pipeline.snake
    return msgspec.structs.replace(task, void="", shape=state.scan.shape, snake=snake)


def void_plan(state: ScanState, pipeline: PipelineConfig, settings: Digest, reason: str) -> list[Task]:
    """Return a closed plan in which nothing can be computed, for one reason."""
    whole = [Piece(0, state.points, trouble=reason)]
    blocks = _blocks(state, pipeline, [], state.points)
    return [_task(state.scan.id, pipeline, settings, part) for start, stop in blocks for part in runs(whole, start, stop)]


def _blocks(state: ScanState, pipeline: PipelineConfig, starts: Sequence[int], points: int) -> Iterator[tuple[int, int]]:
    """Cut `[0, points)` into the ranges of tasks; `starts` says where files begin."""
    size = pipeline.source.frames_per_task
    at = 0
    if size == "file" and starts:
        yield from itertools.pairwise([start for start in starts if start < points] + [points])
        return
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
