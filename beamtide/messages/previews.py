"""Previews: datasets of a task that is still running, to look at; they are not results.

The worker sends them to the sink, which keeps the newest of each scan and pipeline in memory until the result is there; a viewer
asks as often as it draws. Nothing waits for a preview, and a lost preview is not sent again.
"""

from beamtide.messages.base import Message, PipelineName, ScanId
from beamtide.messages.results import DatasetHeader, Product


class PreviewTold(Message, frozen=True, kw_only=True):
    """A preview of an attempt (`progress` from 0 to 1); the arrays have the names of `datasets`. Answered `Ok`."""

    product: Product
    attempt: int
    progress: float
    datasets: tuple[DatasetHeader, ...]


class PreviewRequest(Message, frozen=True, kw_only=True):
    """Show me the newest preview of a scan and pipeline, if its number is above `after`. Answered `Preview`."""

    scan: ScanId
    pipeline: PipelineName
    after: int = 0


class Preview(Message, frozen=True, kw_only=True):
    """The newest preview, with its arrays. `number` grows with each; it equals `after` of the request if nothing is newer."""

    number: int
    progress: float = 0.0
    product: Product | None = None
    datasets: tuple[DatasetHeader, ...] = ()
