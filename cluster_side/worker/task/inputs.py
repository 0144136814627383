"""The inputs of a task's kernel: frames from files, and other pipelines' datasets from the sink.

Invariants: neither a path nor what an HDF5 file leads to leaves its root, whatever the task says;
every array has one row per index of the task.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.formats import confinement
from beamtide.formats.base import FileFormat, StatesUnits
from beamtide.formats.lazy import joined
from beamtide.gridding import places
from beamtide.messages.base import Message
from beamtide.messages.results import Fetched, FetchRequest, ListRequest, Products
from beamtide.messages.tasks import InputFile, Need, Task
from beamtide.pump import Caller

PATIENCE = 60.0


def read(task: Task, roots: Roots, caller: Caller, sink: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return all input arrays of a task, and the units of other pipelines' datasets; BadInput says what is wrong with which."""
    needs = {f"{need.pipeline}/{need.dataset}": need for need in task.needs if need.dataset}
    fetched = {name: fetch(task, need, caller, sink) for name, need in needs.items()}
    arrays = read_with(task, roots, {name: array for name, (_, array) in fetched.items()})
    return arrays, {name: unit for name, (unit, _) in fetched.items()}


def read_with(task: Task, roots: Roots, datasets: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the input arrays of a task, from its files and from datasets of other pipelines that are given."""
    return _complete({**read_files(task, roots), **datasets, **_places(task)}, task)


def _places(task: Task) -> dict[str, NDArray[Any]]:
    """Return where the indexes of a whole scan lie, as "scan/line" and "scan/column"; nothing for the task of a part."""
    if not task.shape:
        return {}
    line, column = places(task.shape, task.stop, snake=task.snake)
    return {"scan/line": line[task.start :], "scan/column": column[task.start :]}


def read_files(task: Task, roots: Roots) -> dict[str, NDArray[Any]]:
    """Return the frames of a task's files, one after the other."""
    parts = [_read_one(given, roots) for given in task.inputs]
    if not parts:
        return {}
    if any(part.keys() != parts[0].keys() for part in parts):
        raise BadInput(f"the files of task {task.id} do not hold the same arrays: {sorted(set().union(*parts))}")
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


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


def _read_one(given: InputFile, roots: Roots) -> dict[str, NDArray[Any]]:
    file_format: FileFormat = registry.find("formats", given.format)
    path = confined(given, roots)
    confinement.before_reading(file_format, path, given.options, roots.raw if given.root == "raw" else roots.processed)
    try:
        return file_format.read(path, given.first, given.last, given.options)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error


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


def _complete(arrays: dict[str, NDArray[Any]], task: Task) -> dict[str, NDArray[Any]]:
    count = task.stop - task.start
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != count:
            raise BadInput(f"input {name!r} of task {task.id} has shape {array.shape}, expected {count} rows, one per index")
    return arrays
