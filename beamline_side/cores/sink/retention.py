"""Retention: which results the sink may delete, because they are in files.

Theory: the writer says that a product is filed: its file exists, its scan has ended, and no task of that scan is open or can be
retried. While there is room, its results stay nevertheless, for viewers and workers. When the sink keeps more than `most` bytes,
the results that changed longest ago are deleted; their state stays, so requests for it get the same answer. Rows are deleted in
batches, some with each tick, so that nothing waits for them; after a restart the deletion continues.

No clock. Invariants: a product that changed after it was filed is kept until it is filed again; `kept` is the sum of all ledgers.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from beamline_side.cores.sink.product_ledger import ProductLedger, Record
from beamtide.machine import Effect, Forget, Keep, Shelf
from beamtide.messages.results import Filed, Product, ProductState

PORTION = 500
FILED, STATES = "filed", "state"
_encode = msgspec.msgpack.encode


@dataclass(slots=True)
class Retention:
    """The products that are in files, and the rows that are being deleted."""

    shelf: Shelf
    most: int
    kept: int = 0
    """Bytes of all results that are kept."""
    _filed: dict[Product, int] = field(default_factory=dict)
    """The version that is in a file."""
    _leaving: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        found = (msgspec.msgpack.decode(body, type=Filed) for _, body in self.shelf.rows(FILED))
        self._filed = {one.product: one.version for one in found}

    def states(self) -> list[ProductState]:
        """Return the remaining rows of products whose deletion began before a restart."""
        return [msgspec.msgpack.decode(body, type=ProductState) for _, body in self.shelf.rows(STATES)]

    def note(self, filed: Filed) -> list[Effect]:
        """Note that a product is filed."""
        self._filed[filed.product] = filed.version
        return [Keep(FILED, filed.product.key, _encode(filed))]

    def add(self, ledger: ProductLedger, record: Record) -> None:
        """Give a record to its ledger, unless the deletion of its product began before a restart."""
        if ledger.filed is not None:
            self._leaving.append(record.key)
            return
        before = ledger.bytes
        ledger.add(record)
        self.kept += ledger.bytes - before

    def step(self, ledgers: Mapping[Product, ProductLedger]) -> list[Effect]:
        """Continue the deletion of rows; when that is done, begin with the next product if there is too little room.

        The product's version stays: a newer one would make it the newest of its scan and pipeline.
        """
        effects: list[Effect] = []
        while not self._leaving and self._filed and self.kept > self.most:
            product = min(self._filed, key=self._filed.__getitem__)
            filed, ledger = self._filed.pop(product), ledgers.get(product)
            effects.append(Forget(FILED, product.key))
            if ledger is not None and ledger.filed is None and ledger.version <= filed:
                self.kept -= ledger.bytes
                self._leaving.extend(ledger.let_go())
                effects += [Keep(STATES, product.key, _encode(ledger.state())), Forget("forms", product.key)]
        keys = [self._leaving.popleft() for _ in range(min(PORTION, len(self._leaving)))]
        return effects + [Forget(table, key) for key in keys for table in ("result", "payload")]

    def why(self) -> str:
        """Say why more is kept than budgets.results allows; "" if it is not."""
        if self.kept <= self.most or self._filed:
            return ""
        return f"{self.kept >> 20} MiB of results are kept, more than budgets.results: they are not in files yet"
