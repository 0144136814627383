"""Tasks, and what is made of them: plain values stand for all that a test leaves open."""

from beamtide.messages.base import Digest, PipelineName, ScanId
from beamtide.messages.results import Product
from beamtide.messages.tasks import InputFile, Need, Task


def make_task(start: int = 0, stop: int | None = None, *, scan: str = "s", pipeline: str = "p", **more: object) -> Task:
    """Return the task of indexes `start <= index < stop`, or of one index; `more` are other fields of `Task`."""
    stop = start + 1 if stop is None else stop
    fields = {"id": f"{scan}/{pipeline}/{start}-{stop}", "modality": "m", "inputs": (), "settings": "d"} | more
    return Task(scan=ScanId(scan), pipeline=PipelineName(pipeline), start=start, stop=stop, **fields)  # type: ignore[arg-type]


def make_input(path: str, first: int = 0, last: int = 1, *, format: str = "hdf5", **more: object) -> InputFile:  # noqa: A002
    """Return frames `first <= frame < last` of a file below `raw`."""
    return InputFile(**{"root": "raw", "path": path, "format": format, "first": first, "last": last} | more)  # type: ignore[arg-type]


def make_need(upto: int, pipeline: str = "positions", dataset: str = "x", settings: str = "") -> Need:
    """Return the need of a dataset of another pipeline."""
    return Need(pipeline=PipelineName(pipeline), dataset=dataset, upto=upto, settings=Digest(settings))


def make_product(scan: str = "s", pipeline: str = "p", settings: str = "d") -> Product:
    """Return the product of the tasks that `make_task` makes."""
    return Product(scan=ScanId(scan), pipeline=PipelineName(pipeline), settings=Digest(settings))
