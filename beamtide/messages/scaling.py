"""What the autoscaler reads: how much work waits, and who works."""

from beamtide.messages.base import Message, PipelineName


class GaugeRequest(Message, frozen=True, kw_only=True):
    """Answered `BufferGauge`."""


class BufferGauge(Message, frozen=True, kw_only=True):
    """The queue of one pipeline at this moment. Times in seconds; 0 means not known yet."""

    pipeline: PipelineName
    ready: int
    held: int
    """Tasks behind a fence: nobody can work on them yet."""
    leased: int
    workers: int
    """Workers that wait for a task or hold one."""
    idle: int
    oldest_wait: float
    service_time: float
    """Mean time from lease to verdict, exponentially weighted."""
    arrival_rate: float
    """Tasks per second over the last 30 s."""
    done: int
    abandoned: int
    retried: int
