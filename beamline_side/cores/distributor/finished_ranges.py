"""Which indexes of a product have results, kept in blocks: all that remains of finished tasks.

Theory: a finished task needs no row of its own: that its range is finished is enough to recognise it. Ranges that touch are
merged, so a finished product costs a row of a few bytes per `BLOCK` indexes, whatever the number of its tasks; one that finishes
in random order never costs more than a row per task. Only the blocks that a batch touches are read and written.

No clock. Invariant: the ranges of a block are disjoint, do not touch, and are in order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from beamtide.machine import Effect, Keep, Shelf

TABLE = "covered"
BLOCK = 4096
Range = tuple[int, int]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Range]).decode


@dataclass(slots=True)
class FinishedRanges:
    """The indexes that are finished, by product (the caller's name for it)."""

    shelf: Shelf
    table: str = TABLE

    def free(self, product: str, start: int, stop: int) -> list[Range]:
        """Return the parts of `[start, stop)` that are not covered."""
        pieces = ((self._block(product, block), (first, last)) for block, first, last in _pieces(start, stop))
        return merged(one for covered, piece in pieces for one in remaining([piece], covered))

    def holds(self, product: str, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is finished."""
        return all(
            any(first <= start and stop <= last for first, last in self._block(product, block))
            for block, start, stop in _pieces(start, stop)
        )

    def add(self, ranges: Iterable[tuple[str, int, int]]) -> list[Effect]:
        """Add finished ranges; return the rows to keep."""
        touched: dict[tuple[str, int], list[Range]] = {}
        for product, start, stop in ranges:
            for block, first, last in _pieces(start, stop):
                if (product, block) not in touched:
                    touched[product, block] = self._block(product, block)
                touched[product, block].append((first, last))
        return [Keep(self.table, _key(*key), _encode(merged(found))) for key, found in touched.items()]

    def _block(self, product: str, block: int) -> list[Range]:
        try:
            return _decode(self.shelf.read(self.table, _key(product, block)))
        except KeyError:
            return []


def remaining(ranges: Iterable[Range], without: Iterable[Range]) -> list[Range]:
    """Return what is left of disjoint ranges without others."""
    found, covered = list[Range](), merged(without)
    for start, stop in ranges:
        at = start
        for low, high in covered:
            if at < min(low, stop):
                found.append((at, min(low, stop)))
            at = max(at, high)
        if at < stop:
            found.append((at, stop))
    return found


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return disjoint ranges in order that cover the same indexes."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _key(product: str, block: int) -> str:
    return f"{product}/{block:09d}"


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield block, start and stop of each part of a range that lies in one block."""
    while start < stop:
        block = start // BLOCK
        end = min(stop, (block + 1) * BLOCK)
        yield block, start, end
        start = end
