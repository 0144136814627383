"""The sink's memory: every result of every product, to list, to watch, to fetch by index range.

Theory: results come from the sorters in index order and are kept under (product, first index); keeping one twice changes
nothing. Arrays stay on disk and are read when somebody asks; in memory are records only. `version` counts the results ever
taken: whoever watches asks for what is newer than the version he has seen, so a late joiner gets the latest state of
everything, a slow one the newest state of what changed, and nothing is lost, since arrays are fetched by index range.
A hole is not for ever: a later arrival of exactly its range and of a higher generation is stored in its place and announced as
a correction. Everything else that comes for a range that is there changes nothing.

Clock policy: `now` only ends the waiting of watchers.
Invariants: those of each `ProductLedger`; a result is on disk before `Released` is said.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from beamline_side.cores.deferred import Asker, Deferred
from beamline_side.cores.product_ledger import Forms, ProductLedger, Record
from beamtide import codec
from beamtide.errors import WireError
from beamtide.machine import Arrays, Effect, Event, Heard, Keep, Peer, Send, Shelf, Unreachable, WakeAt
from beamtide.merge import blank, merge_parts, wide
from beamtide.messages import Message, Refused, Unsupported, results
from beamtide.messages.base import Handle, Seconds, kind_of

MOST_ARRAYS, MOST_BYTES = 480, 128 << 20
"""The most that one answer holds."""
MOST_POINTS = 100_000_000
RETRY = 2.0
"""Seconds after which the sorter may try again what found no room."""
Part: TypeAlias = tuple[Record, NDArray[Any]]
_encode = msgspec.msgpack.encode


@dataclass(slots=True)
class SinkMachine:
    """The catalogue of one site."""

    shelf: Shelf
    _products: dict[results.Product, ProductLedger] = field(default_factory=dict)
    _version: int = 0
    _waiting: Deferred[Peer, results.WatchRequest] = field(default_factory=Deferred)

    def __post_init__(self) -> None:
        for _, body in self.shelf.rows("forms"):
            known = msgspec.msgpack.decode(body, type=Forms)
            forms = {form.header.name: form for form in known.forms}
            self._products[known.product] = ProductLedger(known.product, known.modality, forms)
        for _, body in self.shelf.rows("result"):
            self._add(msgspec.msgpack.decode(body, type=Record))

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case Unreachable():
                self._waiting.forget(event)
            case Heard(message=results.Release(result=result)):
                full = self.shelf.room(sum(one.nbytes for one in event.arrays.values()))
                refused = Refused(reason=full, retry_after=RETRY) if full else self._refusal(result)
                effects += [Send(event.peer, refused, event.id)] if refused else self._take(event, result, event.arrays)
            case Heard(message=results.ReleaseHeld() as held):
                effects += self._take_held(event, held)
            case Heard(message=results.WatchRequest() as request):
                deadline = self._waiting.add(event.peer, event, request, now, request.wait)
                effects.append(WakeAt(Seconds(deadline)))
            case Heard():
                effects.append(Send(event.peer, *self._answer(event)))
        return effects + self._tell_watchers(now)

    def progress(self) -> dict[str, float]:
        """Return how many products and results there are."""
        return {"products": len(self._products), "results": self._version}

    def why(self) -> str:
        """Nothing moves here by itself."""
        return ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        for ledger in self._products.values():
            ledger.check()

    def _add(self, record: Record) -> None:
        ledger = self._products.setdefault(record.product, ProductLedger(record.product, record.modality))
        ledger.add(record)
        self._version = max(self._version, record.version)

    def _take(self, event: Heard, result: results.StoreRequest, arrays: Arrays, held: Handle | None = None) -> list[Effect]:
        task, rows = result.task, self._keep(result, arrays, held)
        outcome = self._products[results.product_of(task)].outcome(task.start, task.stop)
        answer = results.Released(task=task.id, generation=task.generation, outcome=outcome)
        return [*rows, Send(event.peer, answer, event.id)]

    def _take_held(self, event: Heard, held: results.ReleaseHeld) -> list[Effect]:
        """Take a result from where the sorter has it; what we have already is not looked at: it may be gone there."""
        ledger = self._products.get(held.product)
        if ledger is not None and ledger.keeps(held.start, held.stop):
            outcome = ledger.outcome(held.start, held.stop)
            answer = results.Released(task=held.task, generation=held.generation, outcome=outcome)
            return [Send(event.peer, answer, event.id)]
        try:
            letter = codec.unpack(self.shelf.borrow(held.payload))
        except (KeyError, WireError):
            return [Send(event.peer, results.NotHeld(task=held.task), event.id)]
        result = letter.message
        if not isinstance(result, results.StoreRequest) or self._refusal(result) is not None:
            return [Send(event.peer, Refused(reason=f"{held.task}: its payload is no result"), event.id)]
        return self._take(event, result, letter.arrays, held.payload)

    def _refusal(self, request: results.StoreRequest) -> Refused | None:
        start, stop = request.task.start, request.task.stop
        if 0 <= start < stop <= MOST_POINTS:
            return None
        return Refused(reason=f"{request.task.id}: indexes {start} to {stop - 1} are no range")

    def _keep(self, request: results.StoreRequest, arrays: Arrays, held: Handle | None) -> list[Effect]:
        task = request.task
        product = results.product_of(task)
        ledger = self._products.setdefault(product, ProductLedger(product, task.modality))
        there = ledger.between(task.start, task.stop)
        if there and not (len(there) == 1 and there[0].gives_way_to(task)):
            return []
        trouble, fresh = ledger.learn(request, arrays)
        if trouble:
            request = msgspec.structs.replace(request, outcome="abandoned", reason=trouble, datasets=())
            arrays, held = {}, None
        payload = held or codec.pack(request, arrays)
        size = payload.length if isinstance(payload, Handle) else sum(map(len, payload))
        said, version = (request.outcome, request.reason), self._version + 1
        record = Record(product, task.modality, task.start, task.stop, task.id, *said, version, size, task.generation)
        self._add(record)
        rows: list[Effect] = [Keep("result", record.key, _encode(record)), Keep("payload", record.key, payload)]
        if fresh:
            forms = Forms(product, task.modality, tuple(ledger.forms.values()))
            rows.append(Keep("forms", product.key, _encode(forms)))
        return rows

    def _answer(self, event: Heard) -> tuple[Message, int, Arrays]:
        arrays: Arrays = {}
        match event.message:
            case results.ListRequest(scan=scan, pipeline=pipeline):
                answer: Message = self._state(scan, pipeline, -1)
            case results.FetchRequest() as request:
                answer, arrays = self._fetch(request)
            case results.ResultsRequest() as request:
                answer, arrays = self._whole(request)
            case message:
                answer = Unsupported(kind=kind_of(message))
        return answer, event.id, arrays

    def _state(self, scan: str, pipeline: str, after: int) -> results.Products:
        found = [
            ledger.state()
            for product, ledger in self._products.items()
            if scan in ("", product.scan) and pipeline in ("", product.pipeline) and ledger.version > after
        ]
        return results.Products(products=tuple(sorted(found, key=lambda state: state.version)), version=self._version)

    def _tell_watchers(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        for key, asker in self._waiting.items():
            request = asker.message
            if self._version > request.after:
                answer = self._state(request.scan, request.pipeline, request.after)
                if answer.products and self._waiting.take(key):
                    effects.append(Send(asker.peer, answer, asker.id))
        return effects + [self._nothing_new(asker) for _, asker in self._waiting.expired(now)]

    def _nothing_new(self, asker: Asker[results.WatchRequest]) -> Send:
        return Send(asker.peer, results.Products(products=(), version=self._version), asker.id)

    def _fetch(self, request: results.FetchRequest) -> tuple[Message, Arrays]:
        ledger = self._products.get(request.product)
        form = ledger.forms.get(request.dataset) if ledger else None
        if ledger is None or form is None:
            return self._unknown(request), {}
        start, stop = max(0, request.start), max(0, request.start, request.stop)
        dtype = np.dtype(form.dtype)
        size = max(1, math.prod(form.row)) * dtype.itemsize
        if form.header.per == "index" and (stop - start) * size > MOST_BYTES:
            return Refused(reason=f"{request.dataset}: more than {MOST_BYTES >> 20} MiB at once; fetch fewer indexes"), {}
        parts = self._parts(ledger.between(start, stop), request.dataset)
        if form.header.per == "scan":
            some = next(parts, None)
            merged = wide(dtype) if form.header.merge == "sum" else dtype
            values = blank(form.row, merged) if some is None else merge_parts(form.header, _arrays(some, parts))
        else:
            values = blank((stop - start, *form.row), dtype)
            for record, part in parts:
                first, last = max(start, record.start), min(stop, record.stop)
                values[first - start : last - start] = part[first - record.start : last - record.start]
        answer = results.Fetched(header=form.header, start=start, stop=stop, holes=ledger.holes(start, stop))
        return answer, {"data": values}

    def _parts(self, records: list[Record], dataset: str) -> Iterator[Part]:
        """Read one payload after the other, so that only one is in memory."""
        for record in records:
            part = self._load(record).arrays.get(dataset) if record.outcome == "result" else None
            if part is not None:
                yield record, part

    def _whole(self, request: results.ResultsRequest) -> tuple[Message, Arrays]:
        ledger = self._products.get(request.product)
        if ledger is None:
            return self._unknown(request), {}
        found: list[results.StoreRequest] = []
        arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
        at, size = ledger.next_start(request.start), 0
        while (record := ledger.at(at)) is not None and (not found or size + record.bytes <= min(request.limit, MOST_BYTES)):
            letter = self._load(record)
            assert isinstance(letter.message, results.StoreRequest)
            if found and len(arrays) + len(letter.arrays) > MOST_ARRAYS:
                break
            arrays |= {f"{len(found)}/{name}": array for name, array in letter.arrays.items()}
            found.append(letter.message)
            at, size = record.stop, size + record.bytes
        return results.Results(results=tuple(found), next=at), arrays

    def _load(self, record: Record) -> codec.Letter:
        return codec.unpack(self.shelf.read("payload", record.key))

    def _unknown(self, request: results.FetchRequest | results.ResultsRequest) -> Refused:
        product = request.product
        ledger = self._products.get(product)
        if ledger is None:
            there = sorted({f"{other.scan}/{other.pipeline}" for other in self._products})
            return Refused(reason=f"there is no {product.scan}/{product.pipeline} with these settings; there is: {_few(there)}")
        name = request.dataset if isinstance(request, results.FetchRequest) else ""
        return Refused(reason=f"{product.scan}/{product.pipeline} has no dataset {name!r}; it has: {_few(sorted(ledger.forms))}")


def _arrays(first: Part, rest: Iterator[Part]) -> Iterator[NDArray[Any]]:
    yield first[1]
    for _, part in rest:
        yield part


def _few(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "nothing yet"
