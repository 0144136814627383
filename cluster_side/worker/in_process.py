"""A worker that computes task after task in this process: for tests and notebooks. What a kernel raises is raised."""

import platform

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.machine import Arrays
from beamtide.messages.base import Digest
from beamtide.messages.results import Provenance, StoreRequest
from beamtide.messages.tasks import Outcome, Task
from beamtide.pump import Caller
from cluster_side.worker.task import one_task, ready_kernel
from cluster_side.worker.task.ready_kernel import ReadyKernel
from cluster_side.worker.task.work import Work, name

JOB = "in-process"


class InProcessWorker:
    """Computes tasks of a deployment; `caller` reaches its services."""

    def __init__(self, deployment: Deployment, caller: Caller) -> None:
        self._deployment, self._caller = deployment, caller
        self._ready: dict[Digest, ReadyKernel] = {}

    def compute(self, task: Task, attempt: int) -> tuple[StoreRequest, Arrays]:
        """Read what a task needs and run its kernel; return what a worker would store."""
        if task.settings not in self._ready:
            ask = self._caller, self._deployment.address("metadata")
            self._ready[task.settings] = ready_kernel.obtain(task.settings, self._deployment.site.state / "cache", ask)
        began = clock.monotonic()
        work = Work(self._deployment, task.pipeline, JOB, 0.0, self._ready[task.settings])
        headers, arrays, versions, holes = one_task.compute(work, task, self._caller, [0.0], attempt)
        who = Provenance(
            worker=name(),
            host=platform.node(),
            job=JOB,
            attempt=attempt,
            seconds=clock.monotonic() - began,
            versions=versions,
        )
        outcome: Outcome = "result" if headers else "empty"
        result = StoreRequest(task=task, attempt=attempt, outcome=outcome, datasets=headers, provenance=who, holes=holes)
        return result, arrays
