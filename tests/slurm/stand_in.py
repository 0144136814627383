"""A stand-in for the package pyslurm: exactly the calls of pyslurm 25.11 that we make, on top of Slurm's commands.

Names, types and oddities are those of the real package: `array_task_id` is None for element 0, waiting elements are one record.
"""

import re
import subprocess
from typing import Any

from cluster_side.scaling.launchers.slurm.pyslurm_backend import ATTRIBUTES

OPTIONS = {attribute: option for option, attribute in ATTRIBUTES.items()}
FIELDS = "JobArrayID:|,State:|,RestartCnt:|,Reason:|,exit_code:|,StartTime:|,NodeList:|,Comment:|"


class RPCError(Exception):
    """What pyslurm raises."""


def _run(*words: str, stdin: str = "") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RPCError(done.stderr.strip().rpartition("failed: ")[2])
    return done.stdout


class JobSubmitDescription:
    """Attributes are given as keywords; those that the package does not have are refused, as Cython does."""

    def __init__(self, **attributes: Any) -> None:
        unknown = set(attributes) - {*OPTIONS, "script", "is_requeueable", "resource_sharing"}
        if unknown:
            raise AttributeError(f"JobSubmitDescription has no attribute {sorted(unknown)[0]!r}")
        assert all(isinstance(attributes[name], int) for name in ("ntasks", "cpus_per_task") if name in attributes)
        self._attributes = attributes

    def submit(self) -> int:
        """Return the job's id."""
        words = [f"--{OPTIONS[name]}={value}" for name, value in self._attributes.items() if name in OPTIONS]
        return int(_run("sbatch", "--parsable", "--no-requeue", *words, stdin=self._attributes["script"]))


class Job:
    """One record."""

    def __init__(self, job_id: int) -> None:
        self.id = job_id

    def cancel(self) -> None:
        """Cancel it by its number."""
        name = next((name for name, number in Jobs.numbers.items() if number == self.id), str(self.id))
        _run("scancel", name)


class Jobs(dict[int, Job]):
    """All jobs by number."""

    numbers: dict[str, int] = {}
    names = "beamtide-p06-11010000-xrf"

    @staticmethod
    def load() -> "Jobs":
        """Ask squeue, and give each element a number of its own."""
        import os

        found, waiting = Jobs(), {}
        for line in _run(
            "squeue", "--noheader", "--array", "--states=all", f"--name={Jobs.names}", f"--Format={FIELDS}"
        ).splitlines():
            name, state, restarts, reason, status, start, nodes, comment = line.split("|")[:8]
            array, _, element = name.partition("_")
            record = waiting.get(array) if state == "PENDING" and element else None
            if record is not None:
                record.array_tasks_waiting += f",{element}"
                continue
            number = int(array) if not element else Jobs.numbers.setdefault(name, 1_000_000 + len(Jobs.numbers))
            job: Any = Job(number)
            job.name, job.user_id, job.state, job.state_reason = Jobs.names, os.getuid(), state, reason
            job.requeue_count, job.comment, job.allocated_nodes = int(restarts), comment, nodes or None
            job.exit_code, job.exit_code_signal = int(status) >> 8, int(status) & 127
            job.start_time = int(start) if re.fullmatch(r"\d+", start) else None
            job.array_id, job.array_task_id = (int(array), int(element) or None) if element else (None, None)
            job.array_tasks_waiting = None
            if state == "PENDING" and element:
                job.array_tasks_waiting, waiting[array] = element, job
            found[number] = job
        return found
