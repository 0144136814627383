"""Queues and orders, as autoscaler and launchers see them."""

import sys
from typing import Any

from beamtide.config.models import Deployment
from beamtide.messages.base import PipelineName
from beamtide.messages.scaling import BufferGauge
from cluster_side.scaling.launchers.base import JobOrder, JobShape, job_name


def make_gauge(pipeline: str, ready: int, jobs: dict[str, tuple[int, int]] | None = None, **more: Any) -> BufferGauge:
    """Return a queue whose tasks take 2 s; `jobs`: how many of their workers wait, and how many hold a task."""
    jobs = jobs or {}
    idle, leased = (sum(counts[which] for counts in jobs.values()) for which in (0, 1))
    fields = dict.fromkeys(("held", "oldest_wait", "arrival_rate", "done", "abandoned", "retried"), 0)
    fields |= {"idle": idle, "leased": leased, "workers": idle + leased, "service_time": 2.0, "jobs": jobs, **more}
    return BufferGauge(pipeline=PipelineName(pipeline), ready=ready, **fields)


def make_order(deployment: Deployment, token: str, program: str = "pass", count: int = 1, **more: Any) -> JobOrder:
    """Return an order for jobs of pipeline xrf that run a Python program; `more` are other fields of `JobOrder`."""
    fields = {
        "slots": 1,
        "tasks": 1,
        "shape": JobShape(),
        "name": job_name(deployment, "xrf"),
        "argv": (sys.executable, "-c", program, str(deployment.file)),
        "logs": deployment.site.state / "logs",
    }
    return JobOrder("xrf", "xrf", token, count, **fields | more)
