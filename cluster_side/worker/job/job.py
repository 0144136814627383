"""A job from start to end: its allocation, what it loads, and how long each stage of the start took.

Clock policy: `beamtide.clock`; the batch system's end of the job is turned into our monotonic clock once, at the start.
"""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from beamtide import clock
from beamtide.config.models import Deployment
from cluster_side.worker.job import allocation, job_policy, memory_use, prefork_pool, start_times
from cluster_side.worker.task import ready_kernel
from cluster_side.worker.task.ready_kernel import FindModality

Log: TypeAlias = Callable[[str, str, Mapping[str, Any]], None]
"""Logs an event: level, text, and facts about it."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of a job; `name` "" is the batch system's, `walltime` 0 has no end."""

    pipeline: str
    slots: int = 1
    tasks: int = 0
    name: str = ""
    idle_exit: float = 5.0
    walltime: float = 0.0
    needs: allocation.SlotNeeds = field(default_factory=allocation.SlotNeeds)


def run(deployment: Deployment, options: JobOptions, log: Log, find: FindModality = ready_kernel.registered) -> job_policy.Exit:
    """Run that job."""
    began, environment = clock.monotonic(), dict(os.environ)
    here = allocation.NodeResources(os.cpu_count() or 1, os.sched_getaffinity(0), memory_use.machine_mb())
    name = options.name or allocation.job_name(environment, f"{platform.node()}-{os.getpid()}")
    slots = 1 if options.tasks == 1 else allocation.room(environment, options.slots, options.needs, here)
    left = allocation.seconds_left(environment, options.walltime, clock.utc())
    if sentence := allocation.skew(environment, clock.utc()):
        log("warning", sentence, {"job": name})
    ends = None if left is None else began + left
    work = prefork_pool.prepare_work(deployment, options.pipeline, name, options.idle_exit, find, ends=ends)
    whole = environment.get("SLURM_CPUS_ON_NODE") == str(here.cpus)
    pins = allocation.pins(slots, options.needs.cpus, here, whole_node=whole)
    tasks = options.tasks if options.tasks <= 1 else -(-options.tasks * slots // options.slots)
    took = start_times.taken(environment, began)
    facts = {"slots": slots, "tasks": tasks, "pinned": bool(pins), "ends_in": left and round(left), **start_times.words(took)}
    log("info", "ready", {"job": name, **facts})
    work = replace(work, stages=took)
    return prefork_pool.PreforkPool(work, job_policy.JobPolicy(slots, tasks), memory_mb=options.needs.memory_mb, pins=pins).run()
