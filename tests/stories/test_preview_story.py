"""Previews: the newest attempt's newest picture, until the result is there; never more than are kept."""

import numpy as np
import pytest

from beamline_side.cores.sink.previews import MOST, MOST_BYTES, SinkWithPreviews
from beamline_side.cores.sink.sink import SinkMachine
from beamtide.machine import Heard, Send
from beamtide.messages import Ok, Refused, results
from beamtide.messages.base import PipelineName, ScanId, Seconds
from beamtide.messages.previews import Preview, PreviewRequest, PreviewTold
from tests.builders.tasks import make_product
from tests.stories.shelf import Shelf
from tests.writer_scans import line

HEADER = results.DatasetHeader(name="object", units="", per="scan", merge="first")


@pytest.fixture
def sink() -> SinkWithPreviews:
    return SinkWithPreviews(SinkMachine(Shelf()))


def product(scan: str = "scan_1") -> results.Product:
    return make_product(scan, "xrf", "ab" * 32)


def tell(sink: SinkWithPreviews, value: float, attempt: int = 1, scan: str = "scan_1") -> object:
    told = PreviewTold(product=product(scan), attempt=attempt, progress=0.5, datasets=(HEADER,))
    return said(sink, told, {"object": np.full(3, value)}).message


def said(sink: SinkWithPreviews, message: object, arrays: dict[str, np.ndarray] | None = None) -> Send:
    effects = sink.handle(Heard(peer=b"p", message=message, id=7, arrays=arrays or {}), Seconds(0.0))  # type: ignore[arg-type]
    sink.check()
    return next(effect for effect in effects if isinstance(effect, Send))


def show(sink: SinkWithPreviews, after: int = 0, scan: str = "scan_1") -> tuple[Preview, float | None]:
    answer = said(sink, PreviewRequest(scan=ScanId(scan), pipeline=PipelineName("xrf"), after=after))
    assert isinstance(answer.message, Preview)
    return answer.message, float(answer.arrays["object"][0]) if answer.arrays else None


def test_the_newest_takes_the_place_of_the_one_before(sink: SinkWithPreviews) -> None:
    assert show(sink) == (Preview(number=0), None)
    assert isinstance(tell(sink, 1.0), Ok)
    tell(sink, 2.0)
    found, value = show(sink)
    assert (value, found.progress, found.datasets) == (2.0, 0.5, (HEADER,))
    assert show(sink, after=found.number) == (Preview(number=found.number), None)


def test_an_older_attempt_shows_nothing(sink: SinkWithPreviews) -> None:
    tell(sink, 2.0, attempt=2)
    assert isinstance(tell(sink, 1.0, attempt=1), Ok)
    assert show(sink)[1] == 2.0


def test_the_result_ends_it(sink: SinkWithPreviews) -> None:
    tell(sink, 1.0)
    request, arrays = line(0, product=product())
    said(sink, results.Release(result=request), arrays)
    assert show(sink)[1] is None


def test_no_more_are_kept_than_fit(sink: SinkWithPreviews) -> None:
    for number in range(MOST + 3):
        tell(sink, float(number), scan=f"scan_{number}")
    assert show(sink, scan="scan_0")[1] is None
    assert show(sink, scan=f"scan_{MOST + 2}")[1] == MOST + 2
    told = PreviewTold(product=product(), attempt=1, progress=0.0, datasets=(HEADER,))
    assert isinstance(said(sink, told, {"object": np.zeros(MOST_BYTES + 8, np.uint8)}).message, Refused)
