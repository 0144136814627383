"""What a task that is still at work shows: for viewers, notebooks and dashboards."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from beamtide.config import Deployment
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.previews import Preview, PreviewRequest
from beamtide.pump import Caller


def look(
    caller: Caller, deployment: Deployment, scan: str, pipeline: str, after: int = 0
) -> tuple[Preview, Mapping[str, NDArray[Any]]]:
    """Return the newest preview with its arrays (no arrays: nothing newer than number `after`)."""
    question = PreviewRequest(scan=ScanId(scan), pipeline=PipelineName(pipeline), after=after)
    return caller.converse(deployment.address("sink"), question, Preview, patience=10.0)
