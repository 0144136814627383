"""The interface of a launcher: submit, look, cancel; and `render` and `problems`, which start nothing.

Theory: one order is at most one array submission. It carries a token, unique and on our disk before the call, that the batch
system keeps beside each job (for Slurm in the comment); so after a call that timed out but was accepted, or after our restart,
the jobs are found again and not submitted twice. A launcher never guesses: an answer that is late, cut short or not understood
gives `Unseen`, never an empty listing; a job in an unknown state is `UNKNOWN`, which counts as alive.

Clock policy: times are Unix seconds, for display and for the age of jobs that an earlier autoscaler started.
Invariants: no method raises because of the batch system; none takes longer than its time limit.
"""

import enum
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from beamtide.config.models import Deployment
from beamtide.config.section import NoSettings
from beamtide.errors import BadInput

MOST_IN_ARRAY = 500
"""Elements of one array submission; a site's MaxArraySize may allow less."""


class Phase(enum.Enum):
    """The phase of a job. UNKNOWN counts as alive; ENDED is a normal end, FAILED is not, and `Sighting.cause` says why."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    UNKNOWN = "unknown"


class EndCause(enum.Enum):
    """Why a job ended, or why an order was denied; the circuit breaker treats each in its own way."""

    DONE = "done"
    CANCELLED = "cancelled"
    """By us or by another; no failure."""
    PREEMPTED = "preempted"
    TIMEOUT = "walltime"
    NODE = "node failure"
    """The node failed, not the job: other nodes may work."""
    START = "start failure"
    """The job ended before our program ran: prolog, container image, mount, log folder."""
    MEMORY = "out of memory"
    CODE = "exit code"
    LIMIT = "limit"
    """An association, QOS or queue limit: more may be accepted later."""
    RULES = "refused"
    """Unknown partition, account or reservation, impossible shape: not accepted until a person changes something."""
    DOWN = "batch system down"
    """It cannot be asked now."""


@dataclass(frozen=True, slots=True)
class JobShape:
    """The resources of one job. `cpus`, `memory_mb` (MiB) and `gpus` are per node; `ranks` > 0: MPI over all nodes together."""

    cpus: int = 1
    memory_mb: int = 2048
    gpus: int = 0
    nodes: int = 1
    ranks: int = 0
    walltime_s: int = 3600


@dataclass(frozen=True, slots=True)
class JobOrder:
    """`count` like jobs of one pipeline: at most one (array) submission.

    `token` finds them again; `argv` is the whole command, beginning with the launcher's `beamtide`; `slots` and `tasks` are in it
    already. `logs` is the folder for the output of jobs, in files named after the job's name and id.
    """

    pipeline: str
    modality: str
    token: str
    count: int
    slots: int
    tasks: int
    shape: JobShape
    name: str
    argv: tuple[str, ...]
    logs: pathlib.Path
    env: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    """Nodes to avoid, because they failed lately."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One job (one element of an array) as the batch system shows it.

    `id` is the argument of `cancel`: "1234_7" for element 7 of an array, "1234_7;maxwell" on another cluster. `reason` is the
    text of the batch system, `nodes` are where it runs; `expected_start` and `started` are Unix seconds.
    """

    id: str
    token: str
    phase: Phase
    reason: str = ""
    nodes: tuple[str, ...] = ()
    expected_start: float | None = None
    started: float | None = None
    restarts: int = 0
    cause: EndCause | None = None

    @property
    def job(self) -> str:
        """The name under which the workers of this job lease; it changes with every restart of the job."""
        return job_key(self.id, self.restarts)


@dataclass(frozen=True, slots=True)
class Seen:
    """A good listing: all our jobs that the batch system knows, also those that ended lately, by id."""

    jobs: Mapping[str, Sighting]


@dataclass(frozen=True, slots=True)
class Unseen:
    """No listing; `reason` is one sentence."""

    reason: str


JobListing: TypeAlias = Seen | Unseen


@dataclass(frozen=True, slots=True)
class Submitted:
    """The order was accepted: one id per element, in order."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Denied:
    """Nothing was submitted, and that is certain."""

    cause: EndCause
    reason: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """It may have been accepted: look for jobs with the token before anything else."""

    reason: str


SubmitAnswer: TypeAlias = Submitted | Denied | Unclear


class Launcher(Protocol):
    """A batch system: a class that is made with a `Deployment`, and inherits from this one for what it does not state itself.

    It starts each job with its id in the environment variable `BEAMTIDE_JOB`, unless the batch system's own variables say it.
    """

    settings: ClassVar[type[BaseModel]] = NoSettings
    """What the site file may say of it, in launchers.NAME; `settings_of` returns it."""
    first_start: ClassVar[float] = 12.0
    """Seconds from asking for a job to its first worker, as long as none was measured."""
    jobs_outlive_us: ClassVar[bool] = True
    """Whether jobs may go on while no autoscaler runs; if not, they are cancelled and waited for at its end."""

    @property
    def beamtide(self) -> tuple[str, ...]:
        """The command that starts Beamtide in a job: here, or inside the image."""
        ...

    @property
    def cpus_per_node(self) -> int:
        """CPUs of a node that jobs share; 0 when each job has its nodes for itself. For the node-hour budget."""
        ...

    def submit(self, order: JobOrder) -> SubmitAnswer:
        """Start these jobs."""
        ...

    def look(self) -> JobListing:
        """Return all our jobs, in one call. May return the last listing if it is recent."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask these jobs to leave, in one call; returns at once. Ids of jobs that have ended are ignored."""
        ...

    def render(self, order: JobOrder) -> str:
        """Return exactly what `submit` would run: a script, or a command line."""
        ...

    def problems(self, orders: Sequence[JobOrder]) -> tuple[str, ...]:
        """Return one sentence for each problem that can be found before anything is submitted."""
        ...


def beamtide_command(deployment: Deployment) -> tuple[str, ...]:
    """Return the command that starts Beamtide in a job: the image's, or the Python that runs here."""
    return ("beamtide",) if deployment.site.container.runtime != "none" else (sys.executable, "-m", "beamtide")


Settings = TypeVar("Settings", bound=BaseModel)


def settings_of(deployment: Deployment, model: type[Settings]) -> Settings:
    """Return what the site file says of the launcher that it names; BadInput names each key that is wrong."""
    name = deployment.site.launcher
    try:
        return model.model_validate(deployment.site.launchers.get(name, {}))
    except ValidationError as error:
        found = [f"launchers.{'.'.join(map(str, (name, *one['loc'])))}: {one['msg']}" for one in error.errors()]
        raise BadInput(f"{deployment.file.name}: {'; '.join(found)}") from error


def job_name(deployment: Deployment, pipeline: str) -> str:
    """Return the name of all jobs of a pipeline; `look` asks for exactly these names."""
    beamtime = f"{deployment.site.beamtime}-" if deployment.site.beamtime else ""
    return f"beamtide-{deployment.site.site}-{beamtime}{pipeline}"


def job_key(job: str, restarts: int) -> str:
    """Return the name under which a job leases tasks."""
    return job.partition(";")[0] + (f"+{restarts}" if restarts else "")
