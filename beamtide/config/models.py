"""The models of the configuration files: one site file and one file per pipeline, frozen.

Unknown keys are refused; `beamtide.config.yaml_file` reads the files and names file, line and key path of every mistake.
"""

import hashlib
import os
import pathlib
import tempfile
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beamtide import registry
from beamtide.config.component import ComponentConfig
from beamtide.config.container import Container
from beamtide.config.section import Memory, Name, Section
from beamtide.config.slurm import OtherLaunchers, Slurm

MAX_SOCKET_PATH = 100
"""Bytes; the kernel allows 107 for the path of a socket."""


class Roots(Section):
    """Folders that no path may leave."""

    raw: pathlib.Path
    """Where the detectors write; never written to."""
    processed: pathlib.Path
    """Where results go, in a folder `beamtide` below it."""
    shared: pathlib.Path | None = None
    """Where calibration files are looked up (default: the folder of the site file)."""


class NetworkConfig(Section):
    """Where the components listen."""

    bind: str = "ipc"
    """"ipc": sockets in the state folder, reachable on this machine by this user only; or 127.0.0.1 to bind TCP ports."""
    ports: str = Field(default="28700-28731", pattern=r"^\d{2,5}-\d{2,5}$")
    """The range of TCP ports, used in the order of the components."""
    keys: pathlib.Path | None = None
    """The folder of keys (`beamtide keys`): with it, TCP connections are encrypted and only open to who is on its list."""


class CapsConfig(Section):
    """The most that may run at once; required, so that nobody starts jobs without a limit."""

    jobs: int = Field(ge=0)
    """Jobs of all pipelines together. Jobs that wait count too; 0 starts none."""
    node_hours_per_day: float = Field(ge=0)
    """Node-hours that all jobs may use in any 24 hours; a job that shares a node counts as its share of it."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs of all running and waiting jobs together, so that wide jobs count for more (default: no limit on CPUs)."""


class ScalingConfig(Section):
    """How the autoscaler turns queues into jobs."""

    caps: CapsConfig
    drain_within: float = Field(default=1.0, gt=0)
    """In how many seconds a backlog should be worked off: D of the scaling law."""
    tick: float = Field(default=0.5, gt=0, le=1)
    """Time between two decisions in seconds."""
    idle_exit: float = Field(default=5.0, gt=0)
    """How long a job waits for a task before it ends, in seconds."""


class LeaseConfig(Section):
    """When a lease expires, and when a task is abandoned."""

    ttl: float = Field(default=20.0, gt=0)
    """A lease expires when no heartbeat came for this many seconds."""
    beat: float = Field(default=5.0, gt=0)
    """Seconds between two heartbeats of a worker."""
    faults: int = Field(default=5, ge=1)
    """A task is abandoned after so many failures."""
    losses: int = Field(default=10, ge=1)
    """A task is abandoned after so many lost workers."""


class SpoolConfig(Section):
    """How the services store acknowledged data."""

    durability: Literal["full", "relaxed"] = "full"
    """"full": acknowledged data survive a power cut. "relaxed": they survive SIGKILL; a power cut loses the last seconds."""
    reserve: int = Field(default=64, ge=1, le=65536)
    """MiB on the disk of `state`, for each service, kept free so that begun work can finish when the disk is full."""


class Budgets(Section):
    """The most that one service holds, in MiB; beyond it, a sender waits or is told when to try again."""

    memory: int = Field(default=1024, ge=16)
    """Messages in memory."""
    message: int = Field(default=256, ge=8, le=4096)
    """The largest message, such as a result with its arrays."""
    backlog: int = Field(default=65536, ge=1)
    """Tasks or results on its disk that wait for the next component."""
    results: int = Field(default=65536, ge=1)
    """Results that the sink keeps on its disk; beyond it, it deletes scans that are in result files, the oldest first."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if 2 * self.message > self.memory:
            raise ValueError(f"memory must hold two messages of budgets.message: at least {2 * self.message}")
        return self


class SiteConfig(Section):
    """The site file: one per beamline."""

    site: Name
    roots: Roots
    state: pathlib.Path
    """Folder for spools, sockets and logs; on a local disk, for the service account only."""
    scaling: ScalingConfig
    pipelines: tuple[pathlib.Path, ...]
    """The pipeline files."""
    components: tuple[pathlib.Path, ...] = ()
    """The component files, for components that other distributions bring."""
    network: NetworkConfig = NetworkConfig()
    leases: LeaseConfig = LeaseConfig()
    spool: SpoolConfig = SpoolConfig()
    budgets: Budgets = Budgets()
    launcher: Name = "local"
    """Where jobs run: "local", as processes on this machine; "slurm"; or another batch system that `beamtide formats` lists."""
    slurm: Slurm = Slurm()
    launchers: OtherLaunchers = {}
    """Settings of other launchers, by name; `beamtide schema LAUNCHER` prints what one understands."""
    beamtime: Name | None = None
    """The beamtime that jobs are for; it becomes part of their names."""
    container: Container = Container()


class SourceConfig(Section):
    """Where the frames of a pipeline come from."""

    kind: Literal["files", "scan", "submitted"] = "files"
    """"scan": no files; one task for the whole scan once it has ended, made of other pipelines' datasets (`inputs`).
    "submitted": others make its tasks, a component of the site file or `beamtide submit`."""
    match: str = ""
    """Pattern of the files below roots.raw; "{scan}" stands for the scan's name (of "a+b": for a, then for b). Files are taken in
    the order of their names."""
    format: Name = "hdf5"
    """How frames lie in the files: a name of the registry (`beamtide formats`)."""
    frames_per_task: Literal["file", "line", "scan"] | Annotated[int, Field(ge=1)] = "line"
    """"line": one task per line of the scan; "file": one per file; "scan": one for all of it; or a number of frames."""
    frames_per_file: Literal["auto", "line", "any"] | Annotated[int, Field(ge=1)] = "auto"
    """How many frames a file is meant to hold, so that one that is short leaves a hole and moves no others: "line": those of a
    line of the scan; a number; "any": as many as it does, nothing is lost. "auto": as the files and the scan's shape show."""
    begin_with: int | None = Field(default=None, ge=1)
    """For "scan": the task begins when so many frames and inputs are there; its worker takes the rest while they are measured."""
    options: dict[str, str] = {}
    """For the format; for "hdf5": array name -> dataset path."""
    first: int | None = Field(default=None, ge=0)
    """The number of a scan's first file, if files are numbered (default: 0 or 1, whichever is there)."""
    settle: float = Field(default=2.0, ge=0)
    """After the scan's end, a file that does not open counts as unfinished until it has not changed for so many seconds."""

    @model_validator(mode="after")
    def _files_or_none(self) -> Self:
        if (self.kind == "files") != bool(self.match):
            raise ValueError("match, the pattern of the files, is required for kind: files, and means nothing for others")
        if self.begin_with is not None and self.frames_per_task != "scan":
            raise ValueError("begin_with is for one task that covers the scan: set frames_per_task: scan")
        return self


class BufferConfig(Section):
    """The queue in front of the workers."""

    order: Literal["fifo", "lifo", "priority"] = "fifo"


class JobConfig(Section):
    """The shape of one job."""

    slots: int = Field(default=1, ge=1)
    """Workers at once in a job; more if the batch system gives it more CPUs and memory than it asked for."""
    cpus_per_slot: int = Field(default=1, ge=1)
    """CPUs of one worker."""
    memory_per_slot: Memory = 2048
    """Memory of one worker, for example 2G or 512M; a task that takes more fails with that reason."""
    gpus_per_slot: int = Field(default=0, ge=0)
    """GPUs of one worker."""
    nodes: int = Field(default=1, ge=1)
    """Nodes of one job: more than one only for MPI."""
    ranks: int = Field(default=0, ge=0)
    """MPI ranks of one job over all its nodes (0: no MPI)."""
    walltime: float | None = Field(default=None, ge=60)
    """The longest that a job may run, in seconds (default: from how long tasks take)."""
    tasks_per_job: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """After how many tasks a job ends; 1: the job takes one task and exits."""

    @property
    def cpus(self) -> int:
        """CPUs of one job on each of its nodes."""
        return self.slots * self.cpus_per_slot


def _of_writers(schema: dict[str, Any]) -> None:
    schema["enum"] = list(registry.names("writers"))


class PipelineConfig(Section):
    """A pipeline file: one per modality."""

    pipeline: Name
    modality: Name
    source: SourceConfig
    buffer: BufferConfig = BufferConfig()
    settings: dict[str, Any] = {}
    """For the modality; `beamtide schema MODALITY` prints what it understands."""
    calibration: dict[Name, str] = {}
    """Calibration files: name that the modality knows -> path below roots.shared."""
    positions: Name | None = None
    """The pipeline whose "x" and "y" become the axes of this one's maps."""
    snake: bool | None = None
    """Whether every second line of a scan runs backwards (default: as the scan says, and as measured positions show)."""
    inputs: tuple[str, ...] = ()
    """Datasets of other pipelines ("pipeline/dataset") that the kernel gets for its indexes; tasks wait for them."""
    job: JobConfig = JobConfig()
    write: tuple[Annotated[Name, Field(json_schema_extra=_of_writers)], ...] = ("hdf5",)
    """What becomes of the results: names of writers (`beamtide formats`)."""


class Deployment(BaseModel):
    """A site with its pipelines: what every component is started from."""

    model_config = ConfigDict(frozen=True)

    site: SiteConfig
    pipelines: dict[str, PipelineConfig]
    file: pathlib.Path
    """The site file."""
    added: dict[str, ComponentConfig] = {}
    """Components of other distributions, by name."""

    def components(self) -> tuple[str, ...]:
        """Return the names of the services, in the order of their ports."""
        per_pipeline = (f"{kind}.{name}" for name in self.pipelines for kind in ("buffer", "sorter"))
        ours = ("topology", "metadata", "distributor", "sink", "fence", *per_pipeline, "source", "writer", "autoscaler")
        return (*ours, *self.added)  # behind ours, whose ports stay where they are

    def sockets(self) -> pathlib.Path:
        """Return the folder of the sockets: `run` in the state folder, or a short one for temporary files if that is too long."""
        near = self.site.state / "run"
        if len(f"{near}/{max(self.components(), key=len)}") <= MAX_SOCKET_PATH:
            return near
        place = hashlib.sha256(str(near).encode()).hexdigest()[:12]
        return pathlib.Path(tempfile.gettempdir()) / f"beamtide-{os.getuid()}-{place}"

    def address(self, component: str) -> str:
        """Return the ZeroMQ address at which a component listens."""
        position = self.components().index(component)
        if self.site.network.bind == "ipc":
            return f"ipc://{self.sockets()}/{component}"
        return f"tcp://{self.site.network.bind}:{int(self.site.network.ports.split('-')[0]) + position}"
