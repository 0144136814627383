"""The sink with previews: it also keeps the newest preview of each scan and pipeline.

Theory: previews are only for display. They are kept in memory, the newest replaces the one before, those of older attempts are
dropped, and the result deletes them. All other events go to the sink unchanged.

Clock policy: none of its own.
Invariants: at most `MOST` previews of at most `MOST_BYTES` each are kept; the least recently updated is dropped first.
"""

from dataclasses import dataclass, field

from beamline_side.cores.sink.sink import SinkMachine
from beamtide.machine import Arrays, Effect, Event, Heard, Send
from beamtide.messages import Message, Ok, Refused, results
from beamtide.messages.base import PipelineName, ScanId, Seconds
from beamtide.messages.previews import Preview, PreviewRequest, PreviewTold

MOST, MOST_BYTES = 8, 64 << 20
Key = tuple[ScanId, PipelineName]


@dataclass(slots=True)
class SinkWithPreviews:
    """The sink, and the previews beside it."""

    sink: SinkMachine
    _shown: dict[Key, tuple[int, PreviewTold, Arrays]] = field(default_factory=dict)
    _number: int = 0

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        match event:
            case Heard(message=PreviewTold() as told):
                return [Send(event.peer, self._told(told, event.arrays), event.id)]
            case Heard(message=PreviewRequest() as question):
                answer, arrays = self._show(question)
                return [Send(event.peer, answer, event.id, arrays)]
            case Heard(message=results.Release(result=result)):
                self._shown.pop((result.task.scan, result.task.pipeline), None)
            case Heard(message=results.ReleaseHeld(product=product)):
                self._shown.pop((product.scan, product.pipeline), None)
        return self.sink.handle(event, now)

    def progress(self) -> dict[str, float]:
        """Return the numbers of the sink."""
        return self.sink.progress()

    def why(self) -> str:
        """Return why the sink waits."""
        return self.sink.why()

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert len(self._shown) <= MOST, "more previews than are kept"
        self.sink.check()

    def _told(self, told: PreviewTold, arrays: Arrays) -> Message:
        size = sum(array.nbytes for array in arrays.values())
        if size > MOST_BYTES:
            return Refused(reason=f"a preview of {size >> 20} MiB; at most {MOST_BYTES >> 20} MiB are kept")
        key = told.product.scan, told.product.pipeline
        before = self._shown.get(key)
        if before is None or before[1].product != told.product or before[1].attempt <= told.attempt:
            self._shown.pop(key, None)
            self._number += 1
            self._shown[key] = self._number, told, {name: array.copy() for name, array in arrays.items()}
            while len(self._shown) > MOST:
                del self._shown[next(iter(self._shown))]
        return Ok()

    def _show(self, question: PreviewRequest) -> tuple[Message, Arrays]:
        number, told, arrays = self._shown.get((question.scan, question.pipeline), (0, None, {}))
        if told is None or number <= question.after:
            return Preview(number=question.after), {}
        return Preview(number=number, progress=told.progress, product=told.product, datasets=told.datasets), arrays
