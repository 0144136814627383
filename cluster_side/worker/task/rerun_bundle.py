"""Reruns a failed task from its bundle, in the foreground: no service, no lease, nothing is stored.

The same steps as `one_task`: settings to kernel, inputs to arrays, kernel, and the check of what it returns.
"""

import pathlib
import tempfile
import traceback
from dataclasses import replace

from beamtide import bundle
from beamtide.task_files import read_tasks
from cluster_side.modalities.base import checked
from cluster_side.modalities.context import ALONE
from cluster_side.worker.task import inputs, live_inputs, one_task, ready_kernel
from cluster_side.worker.task.ready_kernel import FindModality


def run(file: pathlib.Path, raw: pathlib.Path | None, find: FindModality = ready_kernel.registered) -> tuple[int, str]:
    """Rerun a bundle, with its inputs below `raw` if given; return the exit code (1: it fails here, too) and a message."""
    with bundle.opened(file) as folder, tempfile.TemporaryDirectory(prefix="beamtide-") as cache:
        prepared, roots = bundle.read_settings(folder), bundle.read_roots(folder, raw)
        task = live_inputs.as_started(read_tasks(folder / "task.json")[0])
        try:
            ready = ready_kernel.prepare(prepared, pathlib.Path(cache), find)
            needed = {f"{need.pipeline}/{need.dataset}" for need in task.needs if need.dataset}
            datasets = {name: bundle.read_dataset(folder, name)[: task.stop - task.start] for name in needed}
            given = inputs.read_with(task, roots, datasets)
            arrays = dict(ready.in_units(given.arrays, inputs.units_of_files(task, roots)))
            outputs, _ = one_task.readable(ready, replace(given, arrays=arrays), ALONE)
            headers = checked(outputs, ready.declared, task.stop - task.start)
        except Exception as error:
            return 1, f"{traceback.format_exc()}\n{task.id} fails here, too: {one_task.sentence(error)}"
    names = ", ".join(header.name for header in headers[:8]) + (" …" if len(headers) > 8 else "")
    return 0, f"{task.id} works here: {task.stop - task.start} indexes, {names or 'no dataset'}."
