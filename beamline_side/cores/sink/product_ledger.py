"""The ledger of one product: its results by first index, its datasets, and how far it is complete.

Theory: facts are records, one per task; everything reported (complete watermark, holes, state) is derived from them. A dataset
keeps the shape and type of its first part; a part that differs makes its result a hole with a reason, never a crash.
A record without a result is replaced by one of a higher generation for the same range; `corrections` counts these. When the
results are in files they may be deleted: then only `filed`, the state reported last, is left.
Clock policy: none. Invariants: records do not overlap; `complete` is the end of the contiguous run from index 0.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Literal, Self

import msgspec

from beamtide.machine import Arrays
from beamtide.messages.base import TaskId
from beamtide.messages.results import DatasetHeader, Hole, Product, ProductState, StoreRequest
from beamtide.messages.tasks import Outcome, Task


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One result, without its arrays."""

    product: Product
    modality: str
    start: int
    stop: int
    task: TaskId
    outcome: Outcome
    reason: str
    version: int
    bytes: int
    generation: int = 0
    holes: tuple[Hole, ...] = ()
    """Indexes of a result whose frames could not be read."""

    @property
    def key(self) -> str:
        """The key of its rows: sorts by product, then by index."""
        return f"{self.product.key}/{self.start:012d}"

    def gives_way_to(self, task: Task) -> bool:
        """Whether a task's verdict replaces this record."""
        same = (self.start, self.stop) == (task.start, task.stop)
        return same and self.outcome == "abandoned" and task.generation > self.generation


class Form(msgspec.Struct, frozen=True, array_like=True):
    """What all parts of a dataset have in common; `row` is the shape of one index's value, or of the whole for per="scan"."""

    header: DatasetHeader
    dtype: str
    row: tuple[int, ...]


class Forms(msgspec.Struct, frozen=True, array_like=True):
    """The datasets of a product; a row of the table "forms"."""

    product: Product
    modality: str
    forms: tuple[Form, ...]


@dataclass(slots=True)
class ProductLedger:
    """The records of one product."""

    product: Product
    modality: str
    forms: dict[str, Form] = field(default_factory=dict)
    version: int = 0
    complete: int = 0
    corrections: int = 0
    """The sum of all generations."""
    bytes: int = 0
    """About how many bytes the results take on disk."""
    filed: ProductState | None = None
    _records: dict[int, Record] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)
    _without: int = 0
    """How many records have no result."""
    _gone: list[int] = field(default_factory=list)
    """The first indexes of the records without a result, or with one that has holes."""

    def add(self, record: Record) -> None:
        """Take a new record, or one that corrects a hole."""
        before = self._records.get(record.start)
        self._without += (record.outcome != "result") - (before is not None and before.outcome != "result")
        self._records[record.start] = record
        self.corrections += record.generation - (before.generation if before else 0)
        self.bytes += record.bytes - (before.bytes if before else 0)
        if before is None:
            insort(self._starts, record.start)
        elif before.start in self._gone:
            self._gone.remove(record.start)
        if record.outcome != "result" or record.holes:
            insort(self._gone, record.start)
        self.version = max(self.version, record.version)
        while self.complete in self._records:
            self.complete = self._records[self.complete].stop

    @classmethod
    def of_files(cls, state: ProductState) -> Self:
        """Return the ledger of a product whose results were deleted."""
        ledger = cls(state.product, state.modality, version=state.version, complete=state.complete, filed=state)
        ledger.corrections = state.corrections
        return ledger

    def let_go(self) -> list[str]:
        """Keep only the state; return the keys of the rows to delete."""
        self.filed = msgspec.structs.replace(self.state(), filed=True)
        self.bytes = 0
        keys = [self._records[start].key for start in self._starts]
        for part in (self.forms, self._records, self._starts, self._gone):
            part.clear()
        self._without = 0
        return keys

    def at(self, start: int) -> Record | None:
        """Return the record that begins at an index."""
        return self._records.get(start)

    def outcome(self, start: int, stop: int) -> Outcome | Literal[""]:
        """Return the outcome of the record of exactly this range; "" if there is none."""
        record = self._records.get(start)
        return record.outcome if record is not None and record.stop == stop else ""

    def keeps(self, start: int, stop: int) -> bool:
        """Whether a range is final: not missing, and not a hole of exactly this range, which may be corrected."""
        if self.filed is not None:
            return stop <= self.complete
        there = self.between(start, stop)
        hole = len(there) == 1 and there[0].outcome == "abandoned" and (there[0].start, there[0].stop) == (start, stop)
        return bool(there) and not hole

    def next_start(self, start: int) -> int:
        """Return the first index of the first record at or after an index, or where it will be."""
        inside = self.between(start, start + 1)
        return inside[0].stop if inside and inside[0].start < start else max(0, start)

    def between(self, start: int, stop: int) -> list[Record]:
        """Return the records that touch `[start, stop)`, in index order."""
        return self._among(self._starts, start, stop)

    def holes(self, start: int, stop: int) -> tuple[Hole, ...]:
        """Return the ranges in `[start, stop)` that have a verdict but no result."""
        found: list[Hole] = []
        for one in self._among(self._gone, start, stop):
            whole = Hole(start=one.start, stop=one.stop, reason=one.reason or one.outcome, generation=one.generation)
            found += (
                [hole for hole in one.holes if hole.start < stop and start < hole.stop] if one.outcome == "result" else [whole]
            )
        return tuple(found)

    def _among(self, starts: list[int], start: int, stop: int) -> list[Record]:
        first, last = max(0, bisect_left(starts, start) - 1), bisect_left(starts, stop)
        touching = (self._records[begin] for begin in starts[first:last])
        return [record for record in touching if record.stop > start]

    def learn(self, request: StoreRequest, arrays: Arrays) -> tuple[str, bool]:
        """Note new datasets. Return why a result does not fit to the others ("" if it does), and whether a dataset is new."""
        fresh: dict[str, Form] = {}
        length = request.task.stop - request.task.start
        for header in request.datasets:
            array = arrays.get(header.name)
            if array is None:
                return f"dataset {header.name} was announced but did not come", False
            if header.per == "index" and (array.ndim < 1 or array.shape[0] != length):
                return f"dataset {header.name} has {array.shape} values for {length} indexes", False
            if header.per == "scan" and header.merge == "rows" and array.ndim < 1:
                return f"dataset {header.name} is one number, its parts cannot be put in rows", False
            form = Form(header, array.dtype.str, array.shape[1:] if header.per == "index" else array.shape)
            known = self.forms.get(header.name) or fresh.get(header.name, form)
            if (known.header.per, known.header.merge) != (header.per, header.merge):
                return f"dataset {header.name} is merged in another way here than in the results before it", False
            if (known.dtype, known.row) != (form.dtype, form.row):
                was, came = f"{known.dtype}{list(known.row)}", f"{form.dtype}{list(form.row)}"
                return f"dataset {header.name} is {came} here and {was} in the results before it", False
            if header.name not in self.forms:
                fresh[header.name] = form
        self.forms.update(fresh)
        return "", bool(fresh)

    def state(self) -> ProductState:
        """Return the state that others are told."""
        if self.filed is not None:
            return self.filed
        return ProductState(
            product=self.product,
            modality=self.modality,
            complete=self.complete,
            version=self.version,
            datasets=tuple(form.header for form in self.forms.values()),
            holes=self.holes(0, self.complete),
            results=len(self._starts) - self._without,
            corrections=self.corrections,
        )

    def __len__(self) -> int:
        return len(self._starts)

    def check(self) -> None:
        """Raise if an invariant is broken."""
        ranges = [(self._records[start].start, self._records[start].stop) for start in self._starts]
        edges = [edge for pair in ranges for edge in pair]
        assert edges == sorted(edges), f"records overlap: {ranges}"
        records = (self._records[start] for start in self._starts)
        gone = [one.start for one in records if one.outcome != "result" or one.holes]
        assert self._gone == gone, "holes are miscounted"
