"""What a fresh process pays for one task: import, configure, read, fit. `python -m benchmarks.naive SITE TASK` does it once."""

import pathlib
import sys

import msgspec

from beamtide.config import site
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from cluster_side.worker.job import prefork_pool
from cluster_side.worker.task import inputs, ready_kernel


def main(site_file: str, task_file: str) -> None:
    """Do one task and forget the result."""
    deployment = site.load(pathlib.Path(site_file))
    task = msgspec.json.decode(pathlib.Path(task_file).read_bytes(), type=Task)
    work = prefork_pool.prepare_work(deployment, task.pipeline, "naive", 0.0, ready_kernel.registered)
    assert work.ready is not None
    with Caller() as caller:
        given, _ = inputs.read(task, deployment.site.roots, caller, deployment.address("sink"))
        work.ready.kernel(given.arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
