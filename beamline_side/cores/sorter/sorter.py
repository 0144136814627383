"""The sorter's core: results come in any order and are released by acquisition index, each index once.

Theory: store first, order later. A result is on disk before its worker gets `Ok`; ordering is then only a watermark per product
(scan, pipeline, settings) that moves over contiguous ranges. Every index of a scan gets a verdict sooner or later (the source
makes a task for every index, every task ends in one verdict), so the sorter waits without a time-out, and a hole is a verdict
with its reason. The first verdict of a task stays: a second one, of any attempt, changes nothing, because a complete result of an
older attempt is as good as one of a newer attempt. A higher *generation* of a known task is no repetition: it is sent to the sink
as a correction (`corrections`), once its range was released. If a task is abandoned whose range is known, `given_up_tasks` finds
out whether it has a result. A sink on the same host is only told where a payload lies, and takes it from there; a sink that
cannot gets its bytes.

Clock policy: `now` is used only for the time between repetitions.
Invariants: below the watermark everything was released; a range is stored once; ranges of one product do not overlap; at most
`CREDIT` releases are under way.
"""

from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.sorter.byte_budget import ByteBudget
from beamline_side.cores.sorter.corrections import SINK, Corrections, ResultRange, SinkMessages
from beamline_side.cores.sorter.given_up_tasks import GivenUpTasks
from beamline_side.cores.sorter.release_queue import Line, ReleaseQueue, ReleaseRow
from beamtide import codec
from beamtide.machine import Effect, Event, Forget, Heard, Keep, Send, Shelf, Unreachable, WakeAt
from beamtide.messages import Ok, Refused, Unsupported
from beamtide.messages.base import PipelineName, Seconds, TaskId, kind_of
from beamtide.messages.results import NotHeld, Product, Released, RoomRequest, StoreRequest, product_of
from beamtide.messages.scaling import GaugeRequest, SorterGauge

CREDIT = 4
MOST_POINTS = 100_000_000
AGAIN_AFTER = 3.0
"""A release that the sink did not answer is sent again after this many seconds."""
SOON = 0.2
"""Seconds after which a worker may ask again for room in memory."""
RETRY = 2.0
"""Seconds after which a worker may send a result again that found no room."""


@dataclass(slots=True)
class SorterMachine:
    """The sorter of one pipeline."""

    pipeline: str
    shelf: Shelf
    room: ByteBudget = field(default_factory=ByteBudget)
    _lines: dict[Product, Line] = field(default_factory=dict)
    _queues: dict[Product, ReleaseQueue] = field(default_factory=dict)
    """Products with results that wait; a finished product has only its watermark."""
    _places: dict[TaskId, ResultRange] = field(default_factory=dict)
    _to_sink: SinkMessages = field(init=False)
    _corrections: Corrections = field(init=False)
    _given_up_tasks: GivenUpTasks = field(init=False)
    _stored: int = 0
    _released: int = 0
    _repeated: int = 0
    _refused: str = ""
    _silent: bool = False

    def __post_init__(self) -> None:
        decode = msgspec.msgpack.decode
        self._to_sink = SinkMessages(self.shelf)
        self._corrections = Corrections(self.shelf, self._to_sink)
        self._given_up_tasks = GivenUpTasks(self.shelf)
        for _, body in self.shelf.rows("line"):
            line = decode(body, type=Line)
            self._lines[line.product] = line
        for key, body in self.shelf.rows("place"):
            row = decode(body, type=ReleaseRow)
            self._note(TaskId(key), ResultRange(row.product, row.start, row.stop), row.size)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case Heard(message=RoomRequest(size=size)):
                full = self.room.ask(event.peer, size, now)
                return [Send(event.peer, Refused(reason=full, retry_after=SOON) if full else Ok(), event.id)]
            case Heard(message=GaugeRequest()):
                return [Send(event.peer, self._gauge(), event.id)]
            case Heard(message=StoreRequest()):
                self.room.came(event.peer)
                return self._store(event)  # released on the tick that ends the batch, when the payload can be read back
            case Heard(message=Released(task=task, generation=generation) as answer, peer=peer) if peer == SINK:
                effects += [
                    *self._corrections.released(task, generation),
                    *self._drop(task),
                    *self._given_up_tasks.answered(answer),
                ]
                self._refused, self._silent = "", False
            case Heard(message=Refused(reason=reason), peer=peer) if peer == SINK:
                self._refused = reason
            case Heard(message=NotHeld() | Unsupported(), peer=peer) if peer == SINK and not self._to_sink.apart:
                self._send_whole()
            case Unreachable(peer=peer):
                self.room.came(peer)
            case Heard(peer=peer) if peer != SINK:
                effects.append(Send(event.peer, Unsupported(kind=kind_of(event.message)), event.id))
        return effects + self._release(now) + self._corrections.due(now, self._watermark)

    def progress(self) -> dict[str, float]:
        """Return how many results were stored, released, came twice, and wait."""
        return {
            "stored": self._stored,
            "released": self._released,
            "repeated": self._repeated,
            "waiting": len(self._places) + len(self._corrections),
            "waiting_bytes": self.room.waiting,
        }

    def _gauge(self) -> SorterGauge:
        full = (
            f"the sink refuses results: {self._refused}" if self._refused else self.room.why() or self.shelf.room(self.room.last)
        )
        waiting = len(self._places) + len(self._corrections)
        return SorterGauge(pipeline=PipelineName(self.pipeline), waiting=waiting, waiting_bytes=self.room.waiting, full=full)

    def why(self) -> str:
        """Say which index the results wait for, or why the sink refuses them."""
        if self._refused:
            return f"the sink refuses results: {self._refused}"
        if self._silent:
            return f"no credit: the sink does not answer, and {len(self._places)} results wait for it"
        for product, queue in self._queues.items():
            mark = self._lines[product].watermark
            if mark not in queue.stored:
                return f"waits for index {mark} of {product.scan}; {len(queue.stored)} results behind it"
        return self.room.why()

    def check(self) -> None:
        """Raise if an invariant is broken."""
        self.room.check()
        for product, queue in self._queues.items():
            queue.check(self._lines[product].watermark, CREDIT)
        assert sum(len(queue.stored) for queue in self._queues.values()) == len(self._places), "a result is nowhere"

    def _store(self, event: Heard) -> list[Effect]:
        request = event.message
        assert isinstance(request, StoreRequest)
        task = request.task
        place = ResultRange(product_of(task), task.start, task.stop)
        answer = Send(event.peer, Ok(note=task.id), event.id)
        trouble = self._trouble(task.id, place)
        if trouble:
            return [Send(event.peer, Refused(reason=trouble), event.id)]
        if self._is_known(task.id, place):
            given_up = request.outcome == "abandoned"
            return self._given_up(event, request) if given_up else [*self._again(event, request, place), answer]
        size = sum(one.nbytes for one in event.arrays.values())
        if request.outcome != "abandoned" and (full := self._full(size, place)):
            return [Send(event.peer, Refused(reason=full, retry_after=RETRY), event.id)]
        kept: list[Effect] = []
        if place.product not in self._lines:
            kept.append(Keep("line", place.product.key, msgspec.msgpack.encode(Line(place.product))))
        self._note(task.id, place, size)
        self._stored += 1
        row = ReleaseRow(place.product, place.start, place.stop, size)
        kept.append(Keep("place", task.id, msgspec.msgpack.encode(row)))
        kept.append(Keep("payload", task.id, codec.pack(request, event.arrays)))
        return [*kept, answer]

    def _again(self, event: Heard, request: StoreRequest, place: ResultRange) -> list[Effect]:
        """Handle a verdict for a range that is known."""
        if request.task.generation:
            return self._corrections.store(request, event.arrays, place)
        self._repeated += 1
        return []

    def _given_up(self, event: Heard, request: StoreRequest) -> list[Effect]:
        """Handle the news that a task with a known range was abandoned; while a correction of it is under way, wait."""
        task = request.task.id
        if task in self._corrections:
            return []
        return self._given_up_tasks.look(event, request) if task in self._places else self._given_up_tasks.ask(event, request)

    def _full(self, size: int, place: ResultRange) -> str:
        """Why there is no room for a result now: a sentence, or ""."""
        mark, queue = self._watermark(place.product), self._queues.get(place.product)
        end = max(mark, queue.end) if queue else mark
        refused = self.room.refusal(size, next_in_line=place.start == end, first=place.start == mark)
        return refused or self.shelf.room(size)

    def _trouble(self, task: TaskId, place: ResultRange) -> str:
        """Why a result cannot be stored: a sentence, or ""."""
        where = f"{task}: indexes {place.start} to {place.stop - 1} of {place.product.scan}"
        if place.product.pipeline != self.pipeline:
            return f"{where} belong to pipeline {place.product.pipeline}; this is the sorter of {self.pipeline}"
        if not 0 <= place.start < place.stop <= MOST_POINTS:
            return f"{where} are no range"
        if self._places.get(task, place) != place:
            return f"{where}, but a task of this name with other indexes is stored already"
        if self._is_known(task, place):
            return ""
        mark = self._watermark(place.product)
        if place.start < mark:
            return f"{where} begin below index {mark}, up to which results were released already"
        queue = self._queues.get(place.product)
        other = queue.overlapping(place.start, place.stop) if queue else None
        return f"{where} overlap with {other}" if other else ""

    def _is_known(self, task: TaskId, place: ResultRange) -> bool:
        return task in self._places or place.stop <= self._watermark(place.product)

    def _watermark(self, product: Product) -> int:
        line = self._lines.get(product)
        return line.watermark if line else 0

    def _note(self, task: TaskId, place: ResultRange, size: int) -> None:
        line = self._lines.setdefault(place.product, Line(place.product))
        queue = self._queues.setdefault(place.product, ReleaseQueue(line.watermark))
        queue.add(place.start, place.stop, task)
        self.room.stored(task, size)
        self._places[task] = place

    def _drop(self, task: TaskId) -> list[Effect]:
        """Handle `Released`: move the watermark as far as the ranges are contiguous, and delete the payloads."""
        place = self._places.get(task)
        if place is None:
            return []
        queue = self._queues[place.product]
        line, effects = self._lines[place.product], list[Effect]()
        for done, mark in queue.answered(place.start, line.watermark):
            line.watermark = mark
            del self._places[done]
            self.room.released(done)
            self._released += 1
            effects += [Forget("place", done), Forget("payload", done)]
        if not queue.stored:
            del self._queues[place.product]
        return [*effects, Keep("line", place.product.key, msgspec.msgpack.encode(line))] if effects else []

    def _release(self, now: Seconds) -> list[Effect]:
        """Send the next releases, at most `CREDIT` at a time for all products; the product with the fewest under way first."""
        effects: list[Effect] = []
        credit = CREDIT - sum(queue.under_way(now) for queue in self._queues.values())
        for product, queue in sorted(self._queues.items(), key=lambda item: len(item[1].sent)):
            for task in queue.due(self._lines[product].watermark, CREDIT, now):
                if credit <= 0:
                    return effects
                credit -= 1
                self._silent |= task in queue.sent
                queue.note_sent(task, now + AGAIN_AFTER)
                effects += [self._to_sink.of("payload", task, self._places[task]), WakeAt(Seconds(now + AGAIN_AFTER))]
        return effects

    def _send_whole(self) -> None:
        """Handle `NotHeld`: the sink cannot read our segments, so send bytes from now on, and what is under way again."""
        self._to_sink.apart = True
        self._corrections.again()
        for queue in self._queues.values():
            queue.sent.clear()
