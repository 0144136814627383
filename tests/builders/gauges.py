"""Queues as their buffers tell the autoscaler."""

from typing import Any

from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import BufferGauge


def make_gauge(pipeline: str, ready: int, jobs: dict[str, tuple[int, int]] | None = None, **more: Any) -> BufferGauge:
    """Return a queue whose tasks take 2 s; `jobs`: how many of their workers wait, and how many hold a task."""
    jobs = jobs or {}
    idle, leased = (sum(counts[which] for counts in jobs.values()) for which in (0, 1))
    fields = {"idle": idle, "leased": leased, "workers": idle + leased, "service_time": 2.0, "jobs": jobs}
    return BufferGauge(pipeline=PipelineName(pipeline), ready=ready, **fields | more)
