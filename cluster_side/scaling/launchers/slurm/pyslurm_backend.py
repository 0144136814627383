"""Slurm through pyslurm, where the package made for exactly this Slurm version is installed; an optional extra.

Theory: submit, list and cancel by `JobSubmitDescription`, `Jobs.load`, `Job.cancel` and `RPCError`, as pyslurm 25.11 has them.
Waiting elements of an array are one record there, with a list of their numbers; they are expanded. Such an element has no number
of its own yet and cannot be cancelled through `Job.cancel`, so the commands do it. pyslurm has no way to send the warning before
the end of the walltime to the script alone, so there is none; a worker also watches the clock.

Clock policy: none; a call takes as long as Slurm's own MessageTimeout lets it.
Invariants: whatever pyslurm raises becomes an answer; an object without the attributes that we read gives `Unseen`.
"""

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog

from cluster_side.scaling.launchers.base import (
    Denied,
    JobListing,
    Phase,
    Seen,
    Sighting,
    SubmitAnswer,
    Submitted,
    Unclear,
    Unseen,
)
from cluster_side.scaling.launchers.slurm import output
from cluster_side.scaling.launchers.slurm.commands import Commands, Submission
from cluster_side.scaling.launchers.slurm.refusals import cause_of, sentence

ATTRIBUTES: Mapping[str, str] = {
    "job-name": "name",
    "comment": "comment",
    "array": "array",
    "output": "standard_output",
    "open-mode": "log_files_open_mode",
    "export": "environment",
    "time": "time_limit",
    "nodes": "nodes",
    "ntasks": "ntasks",
    "cpus-per-task": "cpus_per_task",
    "mem": "memory_per_node",
    "gres": "gres_per_node",
    "partition": "partitions",
    "reservation": "reservations",
    "account": "account",
    "qos": "qos",
    "constraint": "constraints",
    "exclude": "excluded_nodes",
}
"""Options of sbatch -> attributes of JobSubmitDescription."""
NUMBERS = {"ntasks", "cpus-per-task"}
log = structlog.get_logger()


def load(names: Sequence[str], commands: Commands, several: bool) -> "Pyslurm | None":
    """Return the backend, or None, with one sentence in the log, where it cannot be used."""
    if several:
        log.warning("pyslurm knows one cluster only, so Slurm's commands do the work (slurm.cluster in the site file)")
        return None
    try:
        module = importlib.import_module("pyslurm")
        return Pyslurm(module, names, commands)
    except Exception as error:
        log.warning(
            "pyslurm does not load, so Slurm's commands do the work; install the one for this Slurm's series, or take"
            " `backend: pyslurm` out of the site file",
            reason=str(error).partition("\n")[0],
        )
        return None


class Pyslurm:
    """Submit, list and cancel; `module` is pyslurm."""

    def __init__(self, module: Any, names: Sequence[str], commands: Commands) -> None:
        self._describe, self._jobs, self._job = module.JobSubmitDescription, module.Jobs.load, module.Job
        self._failure: type[Exception] = module.RPCError
        self._names, self._commands = frozenset(names), commands
        self._numbers: dict[str, int] = {}

    def submit(self, submission: Submission) -> SubmitAnswer:
        """Submit once."""
        chosen = {
            ATTRIBUTES[name]: int(value) if name in NUMBERS else value
            for name, value in submission.options.items()
            if name in ATTRIBUTES and value is not None
        }
        if "exclusive" in submission.options:
            chosen["resource_sharing"] = "exclusive"
        try:
            job = self._describe(script=submission.script, is_requeueable=False, **chosen).submit()
        except self._failure as error:
            cause = cause_of(f"submission failed: {error}")
            return Unclear(sentence(str(error))) if cause is None else Denied(cause, sentence(str(error)))
        return Submitted(output.submitted(str(job), submission.count))

    def listing(self) -> JobListing:
        """Load all jobs of this cluster and keep ours."""
        try:
            found: dict[str, Sighting] = {}
            numbers: dict[str, int] = {}
            for job in self._jobs().values():
                if job.name in self._names and job.user_id == os.getuid():
                    seen = {sighting.id: sighting for sighting in _sightings(job)}
                    found |= seen
                    if len(seen) == 1:
                        numbers[next(iter(seen))] = job.id
        except self._failure as error:
            return Unseen(f"pyslurm: {sentence(str(error))}")
        except (AttributeError, TypeError, ValueError) as error:
            return Unseen(f"pyslurm answers in a way that is not understood: {error}")
        self._numbers = numbers
        return Seen(found)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs one by one; those without a number of their own, or that are gone, are left to scancel."""
        left = []
        for name in jobs:
            number = int(name) if name.isdecimal() else self._numbers.get(name)
            try:
                if number is None:
                    left.append(name)
                else:
                    self._job(number).cancel()
            except self._failure as error:
                log.info("pyslurm did not cancel a job", job=name, reason=str(error))
        if left:
            self._commands.cancel(left)


def _sightings(job: Any) -> Iterator[Sighting]:
    phase, cause = output.outcome(str(job.state), (job.exit_code or 0) << 8 | (job.exit_code_signal or 0))
    begun = float(job.start_time) if job.start_time else None
    for name in _ids(job):
        yield Sighting(
            id=name,
            token=job.comment or "",
            phase=phase,
            reason=job.state_reason or "",
            nodes=output.hosts(job.allocated_nodes or ""),
            expected_start=begun if phase is Phase.PENDING else None,
            started=None if phase is Phase.PENDING else begun,
            restarts=job.requeue_count or 0,
            cause=cause,
        )


def _ids(job: Any) -> Iterator[str]:
    if not job.array_id:
        yield str(job.id)
    elif job.array_tasks_waiting:
        yield from output.elements(str(job.array_id), job.array_tasks_waiting.strip("[]"))
    else:
        yield f"{job.array_id}_{job.array_task_id or 0}"  # pyslurm says None for element 0
