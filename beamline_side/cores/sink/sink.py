"""The sink's core: every result of every product, to list, to watch, to fetch by index range.

Theory: results come from the sorters in index order and are kept under (product, first index); storing one twice changes nothing.
Arrays stay on disk and are read when they are asked for; memory holds only records. `version` counts all results ever stored: a
watcher asks for what is newer than the version it has seen, so a late joiner gets the latest state of everything, a slow watcher
the newest state of what changed, and nothing is lost, since arrays are fetched by index range. A hole can be filled: a later
result of exactly its range and of a higher generation replaces it and is announced as a correction. Any other result for a range
that exists changes nothing. Results that are in files may be deleted (`retention`).

Clock policy: `now` only ends the waits of watchers.
Invariants: those of each `ProductLedger`; a result is on disk before `Released` is sent.
"""

from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamline_side.cores.sink.product_ledger import Forms, ProductLedger, Record
from beamline_side.cores.sink.queries import Queries
from beamline_side.cores.sink.retention import Retention
from beamtide import codec
from beamtide.errors import WireError
from beamtide.machine import Arrays, Effect, Event, Heard, Keep, Peer, Send, Shelf, Tick, Unreachable, WakeAt
from beamtide.messages import Message, Ok, Refused, Unsupported, results
from beamtide.messages.base import Handle, Seconds, kind_of

MOST_KEPT = 64 << 30
"""Bytes of results that are kept although they are in files."""
MOST_POINTS = 100_000_000
RETRY = 2.0
"""Seconds after which the sorter may send a result again that found no room."""
_encode = msgspec.msgpack.encode


@dataclass(slots=True)
class SinkMachine:
    """The core of a site's sink."""

    shelf: Shelf
    most: int = MOST_KEPT
    _products: dict[results.Product, ProductLedger] = field(default_factory=dict)
    _version: int = 0
    _waiting: PendingRequests[Peer, results.WatchRequest] = field(default_factory=PendingRequests)
    _retention: Retention = field(init=False)
    _queries: Queries = field(init=False)

    def __post_init__(self) -> None:
        self._retention, self._queries = Retention(self.shelf, self.most), Queries(self.shelf, self._products)
        for state in self._retention.states():
            self._products[state.product] = ProductLedger.of_files(state)
            self._version = max(self._version, state.version)
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
            case Heard(message=results.Filed() as filed):
                effects += [*self._retention.note(filed), Send(event.peer, Ok(), event.id)]
            case Tick() if rows := self._retention.step(self._products):
                effects += [*rows, WakeAt(now)]
            case Heard(message=results.WatchRequest() as request):
                deadline = self._waiting.add(event.peer, event, request, now, request.wait)
                effects.append(WakeAt(Seconds(deadline)))
            case Heard():
                effects.append(Send(event.peer, *self._answer(event)))
        return effects + self._tell_watchers(now)

    def progress(self) -> dict[str, float]:
        """Return how many products and results there are."""
        results_kept = sum(len(ledger) for ledger in self._products.values())
        return {"products": len(self._products), "results": results_kept, "kept_bytes": self._retention.kept}

    def why(self) -> str:
        """Say why more is kept than budgets.results allows."""
        return self._retention.why()

    def check(self) -> None:
        """Raise if an invariant is broken."""
        for ledger in self._products.values():
            ledger.check()
        assert self._retention.kept == sum(ledger.bytes for ledger in self._products.values()), "bytes are miscounted"

    def _add(self, record: Record) -> None:
        ledger = self._products.setdefault(record.product, ProductLedger(record.product, record.modality))
        self._retention.add(ledger, record)
        self._version = max(self._version, record.version)

    def _take(self, event: Heard, result: results.StoreRequest, arrays: Arrays, held: Handle | None = None) -> list[Effect]:
        task, rows = result.task, self._keep(result, arrays, held)
        outcome = self._products[results.product_of(task)].outcome(task.start, task.stop)
        answer = results.Released(task=task.id, generation=task.generation, outcome=outcome)
        return [*rows, Send(event.peer, answer, event.id)]

    def _take_held(self, event: Heard, held: results.ReleaseHeld) -> list[Effect]:
        """Take a result from the sorter's segment; if we have it already, do not read it: the sorter may have deleted it."""
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
            return [Send(event.peer, Refused(reason=f"{held.task}: its payload is not a result"), event.id)]
        return self._take(event, result, letter.arrays, held.payload)

    def _refusal(self, request: results.StoreRequest) -> Refused | None:
        start, stop = request.task.start, request.task.stop
        if not 0 <= start < stop <= MOST_POINTS:
            return Refused(reason=f"{request.task.id}: indexes {start} to {stop - 1} are no range")
        ledger = self._products.get(results.product_of(request.task))
        if ledger is None or ledger.filed is None or stop <= ledger.complete:
            return None
        return Refused(reason=f"{request.task.id}: index {stop - 1} comes after all results of the scan were put into files")

    def _keep(self, request: results.StoreRequest, arrays: Arrays, held: Handle | None) -> list[Effect]:
        task = request.task
        product = results.product_of(task)
        ledger = self._products.setdefault(product, ProductLedger(product, task.modality))
        there = ledger.between(task.start, task.stop)
        if ledger.filed is not None or (there and not (len(there) == 1 and there[0].gives_way_to(task))):
            return []
        trouble, fresh = ledger.learn(request, arrays)
        if trouble:
            request = msgspec.structs.replace(request, outcome="abandoned", reason=trouble, datasets=())
            arrays, held = {}, None
        payload = held or codec.pack(request, arrays)
        size = payload.length if isinstance(payload, Handle) else sum(map(len, payload))
        said, version = (request.outcome, request.reason), self._version + 1
        record = Record(
            product, task.modality, task.start, task.stop, task.id, *said, version, size, task.generation, request.holes
        )
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
                answer, arrays = self._queries.fetch(request)
            case results.ResultsRequest() as request:
                answer, arrays = self._queries.whole(request)
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
