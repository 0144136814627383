"""Messages of the autoscaler: how much work waits, which workers there are, which jobs there are and why."""

import msgspec

from beamtide.messages.base import Message, PipelineName


class StartStages(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How long the start of a job took, in seconds (0 = there was no such stage).

    `staging` brings the image to the node, `image` enters it, `imports` loads Python and the packages, `kernel` loads the
    settings and computes what depends only on them.
    """

    staging: float = 0.0
    image: float = 0.0
    imports: float = 0.0
    kernel: float = 0.0


class GaugeRequest(Message, frozen=True, kw_only=True):
    """Answered `BufferGauge` by a buffer, `SorterGauge` by a sorter."""


class PipelineRequest(Message, frozen=True, kw_only=True):
    """The autoscaler's request; answered `BufferGauge` when the queue grows far beyond `ready`, else after `wait` seconds.

    It also says which workers should stay: `keep` of them as long as the autoscaler repeats this, all others until they were idle
    for `linger` seconds. Workers of the jobs in `leaving` get no further task. All this is forgotten after some seconds without a
    new request.
    """

    keep: int = 0
    linger: float = 0.0
    leaving: tuple[str, ...] = ()
    ready: int = 0
    wait: float = 0.0


class BufferGauge(Message, frozen=True, kw_only=True):
    """The queue of one pipeline at this moment. Times in seconds; 0 means not known yet."""

    pipeline: PipelineName
    ready: int
    held: int = 0
    """Tasks behind a fence: nobody can work on them yet."""
    leased: int = 0
    workers: int = 0
    """Workers that wait for a task or hold one."""
    idle: int = 0
    oldest_wait: float = 0.0
    service_time: float = 0.0
    """Mean time from lease to verdict, exponentially weighted."""
    arrival_rate: float = 0.0
    """Tasks per second over the last 30 s."""
    done: int = 0
    abandoned: int = 0
    retried: int = 0
    service_p95: float = 0.0
    service_p99: float = 0.0
    """Percentiles of the last hundred times from lease to verdict."""
    jobs: dict[str, tuple[int, int]] = {}
    """By job, for jobs heard of lately: how many of its workers wait, and how many hold a task."""
    starts: dict[str, StartStages] = {}
    """How jobs started, by job, for jobs heard of lately."""


class SorterGauge(Message, frozen=True, kw_only=True):
    """Results of one pipeline at this moment: how many wait for the sink; `full` says why there is no room ("" = there is)."""

    pipeline: PipelineName
    waiting: int
    waiting_bytes: int
    full: str = ""


# --- people to the autoscaler --------------------------------------------------------------------------------------------


class JobsRequest(Message, frozen=True, kw_only=True):
    """Which jobs are there, and why? Answered `Jobs`."""


class JobReport(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One job; `age` in seconds since it was asked for, `expected_start` in Unix time (0 = the batch system does not say)."""

    id: str
    pipeline: PipelineName
    state: str
    age: float
    reason: str = ""
    nodes: tuple[str, ...] = ()
    expected_start: float = 0.0
    slots: int = 1


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One pipeline: the jobs wanted, asked for and seen, and why there are that many. Times in seconds."""

    pipeline: PipelineName
    want: int
    pending: int
    starting: int
    working: int
    because: str
    cold_start: float
    service_time: float
    most: int = -1
    """The most jobs that a person allows (-1 = only the site's caps)."""
    paused: bool = False
    stages: StartStages | None = None
    """The mean start stages of the last jobs (None: not known yet)."""


class Jobs(Message, frozen=True, kw_only=True):
    """All pipelines and jobs; `trouble` says why the batch system's answer cannot be used ("" = it can)."""

    launcher: str
    pipelines: tuple[PipelineReport, ...]
    jobs: tuple[JobReport, ...]
    cap: int
    node_hours: float
    node_hours_per_day: float
    trouble: str = ""
    avoided: tuple[str, ...] = ()
    """Nodes that jobs avoid at present, because they failed."""


class ScaleRequest(Message, frozen=True, kw_only=True):
    """Limit the jobs of a pipeline to `most` (-1: only the site's caps), or start none for now (`paused`); answered `Ok`."""

    pipeline: PipelineName
    most: int = -1
    paused: bool = False
