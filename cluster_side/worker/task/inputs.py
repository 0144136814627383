"""The inputs of a task's kernel: frames from files, and other pipelines' datasets from the sink.

Invariants: neither a path nor what an HDF5 file leads to leaves its root, whatever the task says;
every array has one row per index of the task that can be read.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.formats import confinement
from beamtide.formats.base import FileFormat, LostFrames, Missing, StatesUnits, moved
from beamtide.formats.lazy import joined
from beamtide.gridding import places, runs_back_and_forth
from beamtide.messages.base import Message
from beamtide.messages.results import Fetched, FetchRequest, ListRequest, Products
from beamtide.messages.tasks import InputFile, Need, Task
from beamtide.pump import Caller
from cluster_side.worker.task.given import Given

PATIENCE = 60.0
GRACE = 120 * 10**9
"""ns by which the time of a file may differ: other machines see a change late, and a writer closes its file."""


def read(task: Task, roots: Roots, caller: Caller, sink: str) -> tuple[Given, dict[str, str]]:
    """Return all input arrays of a task, and the units of other pipelines' datasets; BadInput says what is wrong with which."""
    needs = {f"{need.pipeline}/{need.dataset}": need for need in task.needs if need.dataset}
    fetched = {name: fetch(task, need, caller, sink) for name, need in needs.items()}
    given = read_with(task, roots, {name: array for name, (_, array) in fetched.items()})
    return given, {name: unit for name, (unit, _) in fetched.items()}


def read_with(task: Task, roots: Roots, datasets: Mapping[str, NDArray[Any]]) -> Given:
    """Return the input arrays of a task, those of its files and other pipelines' datasets that are at hand."""
    files = read_files(task, roots)
    others = {name: array if len(files.rows) == files.count else array[files.rows] for name, array in datasets.items()}
    own = {name: array[files.rows] for name, array in _places(task, datasets).items()}
    return replace(files, arrays=_complete({**files.arrays, **others, **own}, task, len(files.rows)))


def _places(task: Task, datasets: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return where the indexes of a whole scan lie, as "scan/line" and "scan/column"; nothing for the task of a part.

    Whether every second line ran backwards is what positions "…/x" and "…/y" of another pipeline show, else what the task says.
    """
    if not task.shape:
        return {}
    pair = next((name[:-2] for name in datasets if name.endswith("/x") and f"{name[:-2]}/y" in datasets), None)
    seen = None if pair is None else runs_back_and_forth(datasets[f"{pair}/x"], datasets[f"{pair}/y"], task.shape)
    line, column = places(task.shape, task.stop, snake=task.snake if seen is None else seen)
    return {"scan/line": line[task.start :], "scan/column": column[task.start :]}


def read_files(task: Task, roots: Roots) -> Given:
    """Return the frames of a task's files, one after the other, without those that cannot be read; BadInput if none can."""
    parts, rows, lost, at = list[dict[str, Any]](), list[NDArray[np.int64]](), list[Missing](), 0
    for given in task.inputs:
        found, missing = _read_one(given, roots, as_it_is=task.generation > 0)
        parts += [arrays for _, arrays in found]
        rows += [np.arange(first, last) - given.first + at for (first, last), _ in found]
        lost += moved(missing, at - given.first)
        at += given.last - given.first
    if lost and not parts:
        raise BadInput(lost[0].why)
    if any(part.keys() != parts[0].keys() for part in parts):
        raise BadInput(f"the files of task {task.id} do not hold the same arrays: {sorted(set().union(*parts))}")
    arrays = {name: joined([part[name] for part in parts]) for name in parts[0]} if parts else {}
    count = task.stop - task.start
    return Given(arrays, np.concatenate(rows) if lost else np.arange(count), count, tuple(lost))


def units_of_files(task: Task, roots: Roots) -> dict[str, str]:
    """Return the unit of each column that the files of a task state; BadInput if they do not agree."""
    found: dict[str, str] = {}
    for given in task.inputs:
        file_format = registry.find("formats", given.format)
        if not isinstance(file_format, StatesUnits):
            continue
        path = confined(given, roots)
        for name, unit in file_format.units(path, given.options).items():
            if found.setdefault(name, unit) != unit:
                raise BadInput(
                    f"{path} gives {name!r} in {unit}, an earlier file of the scan in {found[name]}; correct one of them"
                )
    return found


def confined(given: InputFile, roots: Roots) -> pathlib.Path:
    """Return the full path of an input; BadInput if it leaves its root."""
    folders = {"raw": roots.raw, "processed": roots.processed}
    if given.root not in folders:
        raise BadInput(f"input {given.path}: there is no root {given.root!r}; use raw or processed")
    root = folders[given.root].resolve()
    full = (root / given.path).resolve()
    if not full.is_relative_to(root):
        raise BadInput(f"input {given.path} leaves {root}; a task may only read below it")
    return full


def _read_one(
    given: InputFile, roots: Roots, *, as_it_is: bool
) -> tuple[list[tuple[tuple[int, int], dict[str, Any]]], tuple[Missing, ...]]:
    """Return the runs of frames of an input that can be read, with their arrays, and the frames that cannot.

    Whoever retries a task means its files `as_it_is` now.
    """
    file_format: FileFormat = registry.find("formats", given.format)
    path = confined(given, roots)
    if not as_it_is:
        same_file(given, path)
    confinement.before_reading(file_format, path, given.options, roots.raw if given.root == "raw" else roots.processed)
    todo, found, lost = [(given.first, given.last)], list[tuple[tuple[int, int], dict[str, Any]]](), list[Missing]()
    while todo:
        first, last = todo.pop(0)
        try:
            found.append(((first, last), file_format.read(path, first, last, given.options)))
        except LostFrames as error:
            lost += error.missing
            todo = [*_rest((first, last), error.missing), *todo]
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error}") from error
    return found, tuple(lost)


def _rest(run: tuple[int, int], missing: tuple[Missing, ...]) -> list[tuple[int, int]]:
    """Return what is left of a run of frames without those that are missing."""
    at, found = run[0], list[tuple[int, int]]()
    for one in sorted(missing, key=lambda one: one.first):
        found.append((at, one.first))
        at = max(at, one.last)
    return [(first, last) for first, last in [*found, (at, run[1])] if first < last]


def same_file(given: InputFile, path: pathlib.Path) -> None:
    """Raise BadInput if a file is not the one any more that the task was made of: gone, replaced, or written again.

    A file that grew is the same, and so is one whose time changed a little: its writer may have closed it meanwhile.
    """
    was = given.was
    if was is None:
        return
    try:
        now = path.stat()
    except OSError as error:
        raise BadInput(
            f"{path} was there with {was.frames} frames when this task was made, and is gone ({error.strerror}); "
            "bring it back, then retry the task (beamtide dlq retry)"
        ) from error
    if now.st_size == was.size and abs(now.st_mtime_ns - was.changed) < GRACE:
        return
    if now.st_ino != was.inode or (now.st_size <= was.size and abs(now.st_mtime_ns - was.changed) >= GRACE):
        raise BadInput(
            f"{path} is not the file any more that this task was made of: it had {was.size} bytes and {was.frames} frames, "
            f"and has {now.st_size} bytes of another time; if it is right as it is now, retry the task (beamtide dlq retry)"
        )


def fetch(task: Task, need: Need, caller: Caller, sink: str) -> tuple[str, NDArray[Any]]:
    """Return unit and rows of a dataset of another pipeline, for the indexes of a task."""
    question: Message = ListRequest(scan=task.scan, pipeline=need.pipeline)
    found = caller.ask(sink, question, Products, patience=PATIENCE).products
    found = tuple(state for state in found if need.settings in ("", state.product.settings))
    if not found:
        raise BadInput(
            f"{need.pipeline}/{need.dataset} of scan {task.scan} is needed, but the sink has no results of {need.pipeline}"
        )
    product = max(found, key=lambda state: state.version).product
    question = FetchRequest(product=product, dataset=need.dataset, start=task.start, stop=task.stop)
    answer, arrays = caller.converse(sink, question, Fetched, patience=PATIENCE)
    return answer.header.units, arrays["data"]


def _complete(arrays: dict[str, Any], task: Task, count: int) -> dict[str, Any]:
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != count:
            raise BadInput(f"input {name!r} of task {task.id} has shape {array.shape}, expected {count} rows, one per index")
    return arrays
