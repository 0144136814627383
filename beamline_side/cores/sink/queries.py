"""Queries to the sink: rows of one dataset by index, or whole results in index order.

Theory: arrays stay on disk; they are read when they are asked for, one payload after the other, so that only one is in memory.
Rows of holes are NaN (0 for integers). The size of an answer is limited; for more, ask again.
No clock, and nothing changes here.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from beamline_side.cores.sink.product_ledger import ProductLedger, Record
from beamtide import codec
from beamtide.machine import Arrays, Shelf
from beamtide.merge import blank, merge_parts, wide
from beamtide.messages import Message, Refused
from beamtide.messages.results import Fetched, FetchRequest, Product, Results, ResultsRequest, StoreRequest

MOST_ARRAYS, MOST_BYTES = 480, 128 << 20
"""The most that one answer holds."""
Part: TypeAlias = tuple[Record, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Queries:
    """Reads the results of all products."""

    shelf: Shelf
    products: Mapping[Product, ProductLedger]

    def fetch(self, request: FetchRequest) -> tuple[Message, Arrays]:
        """Return the rows of one dataset."""
        ledger = self.products.get(request.product)
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
        answer = Fetched(header=form.header, start=start, stop=stop, holes=ledger.holes(start, stop))
        return answer, {"data": values}

    def _parts(self, records: list[Record], dataset: str) -> Iterator[Part]:
        """Read one payload after the other, so that only one is in memory."""
        for record in records:
            part = self._load(record).arrays.get(dataset) if record.outcome == "result" else None
            if part is not None:
                yield record, part

    def whole(self, request: ResultsRequest) -> tuple[Message, Arrays]:
        """Return whole results, as many as fit into one answer."""
        ledger = self.products.get(request.product)
        if ledger is None or ledger.filed is not None:
            return self._unknown(request), {}
        found: list[StoreRequest] = []
        arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
        at, size = ledger.next_start(request.start), 0
        while (record := ledger.at(at)) is not None and (not found or size + record.bytes <= min(request.limit, MOST_BYTES)):
            letter = self._load(record)
            assert isinstance(letter.message, StoreRequest)
            own = {} if request.bare else letter.arrays
            if found and len(arrays) + len(own) > MOST_ARRAYS:
                break
            arrays |= {f"{len(found)}/{name}": array for name, array in own.items()}
            found.append(letter.message)
            at, size = record.stop, size + record.bytes
        return Results(results=tuple(found), next=at), arrays

    def _load(self, record: Record) -> codec.Letter:
        return codec.unpack(self.shelf.read("payload", record.key))

    def _unknown(self, request: FetchRequest | ResultsRequest) -> Refused:
        product = request.product
        ledger = self.products.get(product)
        if ledger is None:
            there = sorted({f"{other.scan}/{other.pipeline}" for other in self.products})
            return Refused(reason=f"there is no {product.scan}/{product.pipeline} with these settings; there is: {_few(there)}")
        if ledger.filed is not None:
            return Refused(
                reason=f"the results of {product.scan}/{product.pipeline} are only in its result files now; read those"
            )
        name = request.dataset if isinstance(request, FetchRequest) else ""
        return Refused(reason=f"{product.scan}/{product.pipeline} has no dataset {name!r}; it has: {_few(sorted(ledger.forms))}")


def _arrays(first: Part, rest: Iterator[Part]) -> Iterator[NDArray[Any]]:
    yield first[1]
    for _, part in rest:
        yield part


def _few(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "nothing yet"
