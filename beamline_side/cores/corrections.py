"""Results of retried tasks on their way to the sink, whose ranges were released before.

Theory: whoever knows a range already gets the newer result as a correction. It is a row of the spool until the sink answers
`Released` for its generation, and is sent after the range itself was released, so the sink never sees it first. Whether it is
worth anything the sink decides: it takes it for a hole of exactly this range and of a lower generation, else changes nothing.

Clock policy: `now` only spaces out repetitions. Invariant: of one task only the highest generation is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from beamtide import codec
from beamtide.machine import Arrays, Effect, Forget, Keep, Send, Shelf, WakeAt, link
from beamtide.messages.base import Seconds, TaskId
from beamtide.messages.results import Product, Release, StoreRequest

AT_ONCE = 4
AGAIN_AFTER = 3.0


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a stored result belongs."""

    product: Product
    start: int
    stop: int


class Correction(msgspec.Struct, array_like=True):
    """What a correction replaces; a row of the table "correction". `again` is when to send it (again)."""

    place: Place
    generation: int
    again: float = 0.0


@dataclass(slots=True)
class Corrections:
    """The corrections that the sink has not confirmed."""

    shelf: Shelf
    _waiting: dict[TaskId, Correction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, body in self.shelf.rows("correction"):
            self._waiting[TaskId(key)] = msgspec.msgpack.decode(body, type=Correction)

    def store(self, request: StoreRequest, arrays: Arrays, place: Place) -> list[Effect]:
        """Take a result of a higher generation; an older one than we have changes nothing."""
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
        """Send some of those whose ranges were released."""
        effects: list[Effect] = []
        ready = ((task, one) for task, one in self._waiting.items() if one.place.stop <= watermark(one.place.product))
        for (task, correction), _ in zip(ready, range(AT_ONCE), strict=False):
            if now >= correction.again:
                correction.again = now + AGAIN_AFTER
                letter = codec.unpack(self.shelf.read("corrected", task))
                assert isinstance(letter.message, StoreRequest)
                effects.append(Send(link("sink"), Release(result=letter.message), arrays=letter.arrays))
                effects.append(WakeAt(Seconds(correction.again)))
        return effects

    def released(self, task: TaskId, generation: int) -> list[Effect]:
        """The sink has seen it."""
        known = self._waiting.get(task)
        if known is None or known.generation != generation:
            return []
        del self._waiting[task]
        return [Forget("correction", task), Forget("corrected", task)]

    def __len__(self) -> int:
        return len(self._waiting)
