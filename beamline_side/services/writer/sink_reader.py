"""Reads what the writer needs from the sink and the metadata server, as plain values.

Every request may be repeated; a service without an answer for `PATIENCE` seconds raises `NoAnswer`, and the caller tries later.
"""

from collections.abc import Callable, Iterator
from typing import Any

from beamline_side.writers.maps import Positions
from beamline_side.writers.product import Batch, batches
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.messages.metadata import (
    File,
    GetFileRequest,
    GetSettingsRequest,
    Scans,
    ScansRequest,
    SettingsAnswer,
    SettingsDocument,
)
from beamtide.messages.results import (
    Fetched,
    FetchRequest,
    ListRequest,
    Product,
    Products,
    ProductState,
    Results,
    ResultsRequest,
    WatchRequest,
)
from beamtide.pump import Caller

WAIT = 0.5
"""How long the sink may hold a request without news, in seconds: less than the time between two heartbeats."""
PATIENCE = 2.5
"""After so many seconds without an answer a service counts as down."""
LONG_PATIENCE = 15.0
"""The same for answers of many megabytes: a repetition too early would only double the work of a busy sink."""


class SinkReader:
    """Reads products, scans, results and settings; `pulse` is called between two long answers."""

    def __init__(self, deployment: Deployment, caller: Caller, pulse: Callable[[], None]) -> None:
        self._sink, self._metadata = deployment.address("sink"), deployment.address("metadata")
        self._caller, self._pulse = caller, pulse

    def products(self, after: int) -> Products:
        """Return the products that changed after a version of the sink."""
        return self._caller.ask(self._sink, WatchRequest(after=after, wait=WAIT), Products, patience=PATIENCE)

    def is_filed(self, product: Product) -> bool:
        """Whether the sink has deleted the results of a product, which it does not announce to watchers."""
        question = ListRequest(scan=product.scan, pipeline=product.pipeline)
        found = self._caller.ask(self._sink, question, Products, patience=PATIENCE).products
        return any(state.filed for state in found if state.product == product)

    def scans(self, after: int) -> Scans:
        """Return the scans that changed after a version of the metadata server."""
        return self._caller.ask(self._metadata, ScansRequest(after=after), Scans, patience=PATIENCE)

    def results(self, product: Product, start: int) -> tuple[list[Batch], int]:
        """Return the next results of a product from index `start` on, and the index to ask for after them."""
        request = ResultsRequest(product=product, start=start)
        answer, arrays = self._caller.converse(self._sink, request, Results, patience=LONG_PATIENCE)
        return batches(answer.results, arrays), answer.next

    def all_results(self, product: Product, points: int) -> Iterator[Batch]:
        """Yield all results of a product, batch by batch."""
        start = 0
        while start < points:
            found, following = self.results(product, start)
            if not found or following <= start:
                raise BadInput(f"the sink has no results of {product.pipeline}, {product.scan} from index {start} on.")
            yield from found
            start = following
            self._pulse()

    def explained(self, product: Product) -> tuple[SettingsDocument | None, dict[str, bytes]]:
        """Return the settings of a product and its calibration files; None when the server does not know them any more."""
        try:
            request = GetSettingsRequest(digest=product.settings)
            document = self._caller.ask(self._metadata, request, SettingsAnswer, patience=PATIENCE).document
            files = {}
            for name, digest in document.calibration.items():
                found = self._caller.ask(self._metadata, GetFileRequest(digest=digest), File, patience=LONG_PATIENCE)
                files[name] = found.content
        except BadInput:
            return None, {}
        return document, files

    def positions(self, source: ProductState, points: int) -> Positions | None:
        """Return x and y of every index as a pipeline found them; None if it does not give both."""
        if not {"x", "y"} <= {header.name for header in source.datasets}:
            return None
        found: dict[str, tuple[str, Any]] = {}
        for name in ("x", "y"):
            request = FetchRequest(product=source.product, dataset=name, start=0, stop=points)
            answer, arrays = self._caller.converse(self._sink, request, Fetched, patience=LONG_PATIENCE)
            found[name] = answer.header.units, arrays["data"]
        (units_x, x), (units_y, y) = found["x"], found["y"]
        return Positions(x, y, units_x, units_y)
