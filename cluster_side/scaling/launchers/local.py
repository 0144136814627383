"""Jobs as processes on this machine: for a laptop, the demo, the tests.

Theory: a job is the leader of a session of its own, and carries its token and number in its environment; so the jobs of an
autoscaler that was killed are found again by reading the processes of this user, and are adopted like those of a batch system.
Invariants: every job has its own log file, and is told to leave (SIGTERM) when we die; the id of a job is its token and number.
"""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from beamtide import clock
from beamtide.config.models import Deployment
from cluster_side.images import admission, enter
from cluster_side.scaling.launchers import job_log
from cluster_side.scaling.launchers.base import (
    Denied,
    EndCause,
    JobListing,
    JobOrder,
    Launcher,
    Phase,
    Seen,
    Sighting,
    SubmitAnswer,
    Submitted,
    beamtide_command,
)

PARENT = "BEAMTIDE_PARENT"
"""Environment variable with the id of the process with which a job ends."""
JOB, TOKEN = "BEAMTIDE_JOB", "BEAMTIDE_TOKEN"
"""Environment variables with the id of a job, and the token of its order."""
ENTERING = 100
"""How often to look, every 5 ms, at a process that is just executing another program."""
REMEMBERED = 1000
"""How many jobs that ended are still shown."""


@dataclass(slots=True)
class _LocalJob:
    token: str
    pid: int
    process: subprocess.Popen[bytes] | None
    """None for one that we adopted."""


class LocalLauncher(Launcher):
    """Starts jobs as processes; their output goes to `<logs>/<name>-<id>.log`."""

    first_start: ClassVar[float] = 3.0
    jobs_outlive_us: ClassVar[bool] = False

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._jobs = _orphans(str(deployment.file))
        self._ended: dict[str, Sighting] = {}

    @property
    def beamtide(self) -> tuple[str, ...]:
        """The command that starts Beamtide: that of this process, or the image's."""
        return beamtide_command(self._deployment)

    @property
    def _in_image(self) -> bool:
        return self._deployment.site.container.runtime != "none"

    @property
    def cpus_per_node(self) -> int:
        """The CPUs of this machine: jobs share it."""
        return os.cpu_count() or 1

    def submit(self, order: JobOrder) -> SubmitAnswer:
        """Start these jobs."""
        ids = tuple(f"{order.token}-{number}" for number in range(order.count))
        for job in ids:
            try:
                self._jobs[job] = self._start(order, job)
            except OSError as error:
                self.cancel(ids)
                return Denied(
                    EndCause.START, f"cannot start a job for pipeline {order.pipeline}: {error.strerror}; look at {order.logs}"
                )
        return Submitted(ids)

    def look(self) -> JobListing:
        """Return all jobs that run, and those that ended lately."""
        running: dict[str, Sighting] = {}
        for name, job in list(self._jobs.items()):
            code = job.process.poll() if job.process else _gone(job.pid, name)
            if code is None:
                running[name] = Sighting(name, job.token, Phase.RUNNING, nodes=(os.uname().nodename,))
                continue
            del self._jobs[name]
            self._ended[name] = self._with_last_line(_end(name, job.token, code))
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return Seen(self._ended | running)

    def _with_last_line(self, end: Sighting) -> Sighting:
        """Add the last line of a failed job's log."""
        if end.cause not in (EndCause.START, EndCause.CODE):
            return end
        words = job_log.last_line(self._deployment, self._deployment.site.state / "logs", end.id)
        return replace(end, reason=f"{end.reason}: {words}" if words else end.reason)

    def cancel(self, ids: Sequence[str]) -> None:
        """Send SIGTERM to these jobs."""
        for name in ids:
            if (job := self._jobs.get(name)) is None:
                continue
            if job.process is not None:
                job.process.send_signal(signal.SIGTERM)  # looks first whether it still runs
            elif _gone(job.pid, name) is None:
                os.kill(job.pid, signal.SIGTERM)

    def render(self, order: JobOrder) -> str:
        """Return the command line of one job."""
        words = [f"{name}={shlex.quote(value)}" for name, value in order.env.items()]
        return " ".join([*words, shlex.join(self._command(order))])

    def problems(self, orders: Sequence[JobOrder]) -> tuple[str, ...]:
        """Return what this machine can never do: more CPUs or nodes than there are."""
        found = list(admission.problems(self._deployment, on_nodes=False))
        for order in orders:
            if order.shape.nodes > 1:
                found.append(
                    f"pipeline {order.pipeline}: a job on {order.shape.nodes} nodes needs a batch system, not launcher: local"
                )
            if order.shape.gpus and not enter.GPU_DRIVER.exists():
                found.append(f"pipeline {order.pipeline}: job.gpus: this machine has no NVIDIA driver; set job.gpus: 0")
            if order.shape.memory_mb > (here := _memory_mb()):
                found.append(f"pipeline {order.pipeline}: a job wants {order.shape.memory_mb} MiB, this machine has {here} MiB")
        return tuple(found)

    def _command(self, order: JobOrder) -> Sequence[str]:
        argv = order.argv if order.shape.ranks < 2 else (self._mpiexec, "-n", str(order.shape.ranks), *order.argv)
        return ("bash", "-c", enter.script(self._deployment, argv, order.shape.gpus)) if self._in_image else argv

    @property
    def _mpiexec(self) -> str:
        """The image's own, or the one beside our Python before any other."""
        beside = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return "mpiexec" if self._in_image else shutil.which("mpiexec", path=beside) or "mpiexec"

    def _start(self, order: JobOrder, job: str) -> _LocalJob:
        order.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = {**os.environ, **order.env, PARENT: str(os.getpid()), JOB: job, TOKEN: order.token}
        with (order.logs / f"{order.name}-{job}.log").open("ab") as log:
            process = subprocess.Popen(
                self._command(order),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _LocalJob(order.token, process.pid, process)


def _end(name: str, token: str, code: int) -> Sighting:
    if code == 0:
        return Sighting(name, token, Phase.ENDED, cause=EndCause.DONE)
    if code in enter.IMAGE_CODES:
        return Sighting(name, token, Phase.FAILED, "the image did not start", cause=EndCause.START)
    said = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    return Sighting(name, token, Phase.FAILED, said, cause=EndCause.CANCELLED if code == -signal.SIGTERM else EndCause.CODE)


def _orphans(site: str) -> dict[str, _LocalJob]:
    """Return the jobs of this site that an earlier autoscaler started here and that still run."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        ours = entry.name.isdigit() and any(site in word for word in _command(int(entry.name)))  # also in the text of a script
        if ours and _leads_session(pid := int(entry.name)):
            environment = _environment(pid)
            if JOB in environment:
                found[environment[JOB]] = _LocalJob(environment[TOKEN], pid, None)
    return found


def _command(pid: int) -> list[str]:
    """Return the command line of a process; one that is just executing another program has none for an instant."""
    for _ in range(ENTERING):
        words = _words(pathlib.Path(f"/proc/{pid}/cmdline"))
        if any(words) or not (_leads_session(pid) and _runs(pid)):
            return words
        clock.pause(0.005)
    return []


def _leads_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def _memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _gone(pid: int, job: str) -> int | None:
    """Return None while a process is that job, else 0: its real exit code is not known.

    A process without an environment that still runs is just executing another program (a script that ends in `exec`).
    """
    environment = _environment(pid)
    return None if environment.get(JOB) == job or (not environment and _runs(pid)) else 0


def _runs(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _environment(pid: int) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(pathlib.Path(f"/proc/{pid}/environ")) if word)
    return {name: value for name, _, value in pairs}


def _words(path: pathlib.Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:  # it ended, or belongs to another user
        return []
