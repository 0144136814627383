"""Results come in any order and go out by acquisition index, each index once.

Theory: store first, order later. A result is on disk before its worker hears `Ok`; ordering is then only a watermark per
product (scan, pipeline, settings) that moves over contiguous ranges. Every index of a scan gets a verdict sooner or later
(the source covers every index with a task, every task ends in one verdict), so the sorter waits without any time-out and a
hole is a verdict with its reason. The first verdict of a task stays: a second one, of whatever attempt, changes nothing,
for a complete result of an older attempt is as good as one of the newer.

Clock policy: `now` only spaces out repetitions of what the sink has not answered.
Invariants: below the watermark everything was released; a range is stored once; ranges of one product do not overlap; at
most `CREDIT` releases per product are on their way.
"""

from dataclasses import dataclass, field

import msgspec

from beamtide import codec
from beamtide.machine import Effect, Event, Forget, Heard, Keep, Peer, Send, Shelf, WakeAt, link
from beamtide.messages import Ok, Refused, Unsupported
from beamtide.messages.base import Seconds, TaskId, kind_of
from beamtide.messages.results import Product, Release, Released, StoreRequest

CREDIT = 4
MOST_POINTS = 100_000_000
AGAIN_AFTER = 3.0
"""A release that the sink did not answer is sent again after this many seconds."""
SINK = link("sink")


class Line(msgspec.Struct, array_like=True):
    """How far one product is released; a row of the table "line"."""

    product: Product
    watermark: int = 0


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a stored result belongs; a row of the table "place"."""

    product: Product
    start: int
    stop: int


@dataclass(slots=True)
class _Queue:
    """The results of one product that wait for their turn, by their first index."""

    line: Line
    stored: dict[int, tuple[int, TaskId]] = field(default_factory=dict)
    sent: dict[TaskId, float] = field(default_factory=dict)


@dataclass(slots=True)
class SorterMachine:
    """The sorter of one pipeline."""

    pipeline: str
    shelf: Shelf
    _queues: dict[Product, _Queue] = field(default_factory=dict)
    _places: dict[TaskId, Place] = field(default_factory=dict)
    _stored: int = 0
    _released: int = 0
    _repeated: int = 0

    def __post_init__(self) -> None:
        decode = msgspec.msgpack.decode
        for _, body in self.shelf.rows("line"):
            line = decode(body, type=Line)
            self._queues[line.product] = _Queue(line)
        for key, body in self.shelf.rows("place"):
            self._note(TaskId(key), decode(body, type=Place))

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case Heard(message=StoreRequest()):
                return self._store(event)  # released on the tick that ends the batch, when the payload can be read back
            case Heard(message=Released(task=task), peer=peer) if peer == SINK:
                effects += self._drop(task)
            case Heard(peer=peer) if peer != SINK:
                effects.append(Send(event.peer, Unsupported(kind=kind_of(event.message)), event.id))
        return effects + self._release(now)

    def progress(self) -> dict[str, float]:
        """Return how many results were stored, released, came twice, and wait."""
        return {
            "stored": self._stored,
            "released": self._released,
            "repeated": self._repeated,
            "waiting": len(self._places),
        }

    def why(self) -> str:
        """Say which index everything waits for."""
        stuck = [queue for queue in self._queues.values() if queue.stored and queue.line.watermark not in queue.stored]
        if not stuck:
            return ""
        first = stuck[0]
        return f"waits for index {first.line.watermark} of {first.line.product.scan}; {len(first.stored)} results behind it"

    def check(self) -> None:
        """Raise if an invariant is broken."""
        for queue in self._queues.values():
            ranges = sorted((start, stop) for start, (stop, _) in queue.stored.items())
            edges = [queue.line.watermark, *(edge for pair in ranges for edge in pair)]
            assert edges == sorted(edges), f"ranges overlap or lie below the watermark: {edges}"
            assert len(queue.sent) <= CREDIT, "more on their way than the credit allows"
        assert sum(len(queue.stored) for queue in self._queues.values()) == len(self._places), "a result is nowhere"

    def _store(self, event: Heard) -> list[Effect]:
        request = event.message
        assert isinstance(request, StoreRequest)
        task = request.task
        place = Place(Product(scan=task.scan, pipeline=task.pipeline, settings=task.settings), task.start, task.stop)
        answer = Send(event.peer, Ok(note=task.id), event.id)
        trouble = self._trouble(task.id, place)
        if trouble:
            return [Send(event.peer, Refused(reason=trouble), event.id)]
        if self._is_known(task.id, place):
            self._repeated += 1
            return [answer]
        kept: list[Effect] = []
        if place.product not in self._queues:
            kept.append(Keep("line", _key(place.product), msgspec.msgpack.encode(Line(place.product))))
        self._note(task.id, place)
        self._stored += 1
        kept.append(Keep("place", task.id, msgspec.msgpack.encode(place)))
        kept.append(Keep("payload", task.id, codec.pack(request, event.arrays)))
        return [*kept, answer]

    def _trouble(self, task: TaskId, place: Place) -> str:
        """Why a result cannot be stored: a sentence, or ""."""
        where = f"{task}: indexes {place.start} to {place.stop - 1} of {place.product.scan}"
        if place.product.pipeline != self.pipeline:
            return f"{where} belong to pipeline {place.product.pipeline}; this is the sorter of {self.pipeline}"
        if not 0 <= place.start < place.stop <= MOST_POINTS:
            return f"{where} are no range"
        if self._places.get(task, place) != place:
            return f"{where}, but a task of this name with other indexes is stored already"
        queue = self._queues.get(place.product)
        if queue is None or self._is_known(task, place):
            return ""
        if place.start < queue.line.watermark < place.stop:
            return f"{where} reach over index {queue.line.watermark}, up to which results were released already"
        for start, (stop, other) in queue.stored.items():
            if other != task and start < place.stop and place.start < stop:
                return f"{where} overlap with {other}"
        return ""

    def _is_known(self, task: TaskId, place: Place) -> bool:
        queue = self._queues.get(place.product)
        return task in self._places or (queue is not None and place.stop <= queue.line.watermark)

    def _note(self, task: TaskId, place: Place) -> None:
        queue = self._queues.setdefault(place.product, _Queue(Line(place.product)))
        queue.stored[place.start] = (place.stop, task)
        self._places[task] = place

    def _drop(self, task: TaskId) -> list[Effect]:
        """The sink has it: move the watermark if it is the next one, and forget the payload."""
        place = self._places.get(task)
        if place is None:
            return []
        queue = self._queues[place.product]
        if place.start != queue.line.watermark:
            return []  # answered out of turn: it stays, is sent again, and is answered again
        queue.line.watermark = place.stop
        queue.sent.pop(task, None)
        del queue.stored[place.start], self._places[task]
        self._released += 1
        line = Keep("line", _key(place.product), msgspec.msgpack.encode(queue.line))
        return [line, Forget("place", task), Forget("payload", task)]

    def _release(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        for queue in self._queues.values():
            at, ahead = queue.line.watermark, 0
            while ahead < CREDIT and at in queue.stored:
                stop, task = queue.stored[at]
                if now >= queue.sent.get(task, 0.0):
                    queue.sent[task] = now + AGAIN_AFTER
                    effects += [self._parcel(SINK, task), WakeAt(Seconds(now + AGAIN_AFTER))]
                at, ahead = stop, ahead + 1
        return effects

    def _parcel(self, to: Peer, task: TaskId) -> Send:
        letter = codec.unpack(self.shelf.read("payload", task))
        assert isinstance(letter.message, StoreRequest)
        return Send(to, Release(result=letter.message), arrays=letter.arrays)


def _key(product: Product) -> str:
    return f"{product.scan}/{product.pipeline}/{product.settings}"
