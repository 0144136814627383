"""Jobs as processes on this machine: the laptop, the demo, the tests.

Invariants: a job is a process of its own session with its own log file, and is told to leave (SIGTERM) when we die, so that no
job outlives its autoscaler; a job that we did not start is `UNKNOWN`.
"""

import os
import pathlib
import signal
import subprocess
from collections.abc import Sequence

from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import JobPhase, JobSpec

PARENT = "BEAMTIDE_PARENT"
"""Environment variable with the process that a job must not outlive."""


class LocalLauncher:
    """Starts jobs as processes; their output goes to `logs/job-<token>.log`."""

    def __init__(self, logs: pathlib.Path) -> None:
        self._logs = logs
        self._jobs: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)

    def submit(self, specs: Sequence[JobSpec]) -> tuple[str, ...]:
        """Start these jobs and return their ids."""
        return tuple(self._start(spec) for spec in specs)

    def phases(self, ids: Sequence[str]) -> dict[str, JobPhase]:
        """Return the phase of each job."""
        return {job: self._phase(job) for job in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """Send SIGTERM to these jobs."""
        for job in ids:
            process = self._jobs.get(job)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def _start(self, spec: JobSpec) -> str:
        environment = {**os.environ, **spec.env, PARENT: str(os.getpid())}
        try:
            with (self._logs / f"job-{spec.token}.log").open("ab") as log:
                process = subprocess.Popen(
                    spec.argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise BadInput(f"cannot start a job for pipeline {spec.pipeline}: {error.strerror}; look at {self._logs}") from error
        job = str(process.pid)
        while job in self._jobs:  # a pid may come back
            job += "'"
        self._jobs[job] = process
        return job

    def _phase(self, job: str) -> JobPhase:
        process = self._jobs.get(job)
        if process is None:
            return JobPhase.UNKNOWN
        code = process.poll()
        if code is None:
            return JobPhase.RUNNING
        return JobPhase.ENDED if code == 0 else JobPhase.FAILED
