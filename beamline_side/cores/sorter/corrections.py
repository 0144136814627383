"""Corrections: results of retried tasks on their way to the sink, for ranges that were released before.

Theory: a correction is a row of the spool until the sink answers `Released` for its generation. It is sent after the range itself
was released, so the sink never gets it first. The sink decides what to do with it: it replaces a hole of exactly this range and
of a lower generation; otherwise it changes nothing.

Clock policy: `now` is used only for the time between repetitions. Invariant: of one task only the highest generation is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from beamtide import codec
from beamtide.machine import Arrays, Effect, Forget, Keep, Send, Shelf, WakeAt, link
from beamtide.messages.base import Seconds, TaskId
from beamtide.messages.results import Product, Release, ReleaseHeld, StoreRequest

AT_ONCE = 4
AGAIN_AFTER = 3.0
SINK = link("sink")


class ResultRange(msgspec.Struct, frozen=True, array_like=True):
    """The product and range of a stored result."""

    product: Product
    start: int
    stop: int


class Correction(msgspec.Struct, array_like=True):
    """What a correction replaces; a row of the table "correction". `again` is when to send it (again)."""

    place: ResultRange
    generation: int
    again: float = 0.0


@dataclass(slots=True)
class SinkMessages:
    """How a payload is sent to the sink: as a handle, or as bytes to a sink that cannot read the handle."""

    shelf: Shelf
    apart: bool = False
    """Whether the sink cannot use handles: it is on another host, or of an older version."""

    def of(self, table: str, task: TaskId, place: ResultRange, generation: int = 0) -> Send:
        """Return the message that releases a stored result."""
        handle = None if self.apart else self.shelf.handle(table, task)
        if handle is not None:
            start, stop = place.start, place.stop
            held = ReleaseHeld(task=task, product=place.product, start=start, stop=stop, payload=handle, generation=generation)
            return Send(SINK, held)
        letter = codec.unpack(self.shelf.read(table, task))
        assert isinstance(letter.message, StoreRequest)
        return Send(SINK, Release(result=letter.message), arrays=letter.arrays)


@dataclass(slots=True)
class Corrections:
    """The corrections that the sink has not confirmed."""

    shelf: Shelf
    to_sink: SinkMessages
    _waiting: dict[TaskId, Correction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, body in self.shelf.rows("correction"):
            self._waiting[TaskId(key)] = msgspec.msgpack.decode(body, type=Correction)

    def store(self, request: StoreRequest, arrays: Arrays, place: ResultRange) -> list[Effect]:
        """Add a result of a higher generation; one older than ours changes nothing."""
        task = request.task
        known = self._waiting.get(task.id)
        if known is not None and known.generation >= task.generation:
            return []
        correction = self._waiting[task.id] = Correction(place, task.generation)
        return [
            Keep("correction", task.id, msgspec.msgpack.encode(correction)),
            Keep("corrected", task.id, codec.pack(request, arrays)),
        ]

    def due(self, now: Seconds, watermark: Callable[[Product], int]) -> list[Effect]:
        """Send some corrections whose ranges were released."""
        effects: list[Effect] = []
        ready = ((task, one) for task, one in self._waiting.items() if one.place.stop <= watermark(one.place.product))
        for (task, correction), _ in zip(ready, range(AT_ONCE), strict=False):
            if now >= correction.again:
                correction.again = now + AGAIN_AFTER
                effects.append(self.to_sink.of("corrected", task, correction.place, correction.generation))
                effects.append(WakeAt(Seconds(correction.again)))
        return effects

    def released(self, task: TaskId, generation: int) -> list[Effect]:
        """Handle the sink's answer to a correction."""
        known = self._waiting.get(task)
        if known is None or known.generation != generation:
            return []
        del self._waiting[task]
        return [Forget("correction", task), Forget("corrected", task)]

    def __contains__(self, task: TaskId) -> bool:
        return task in self._waiting

    def again(self) -> None:
        """Send everything again, as bytes."""
        for correction in self._waiting.values():
            correction.again = 0.0

    def __len__(self) -> int:
        return len(self._waiting)
