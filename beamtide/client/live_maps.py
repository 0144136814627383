"""Live images of a scan: maps of its results so far, and previews of running tasks.

A dataset with one number per index becomes a map by scan order; a dataset of the whole scan is an image or a curve as it is. Of
complex data the amplitude is shown, of several modes the first. Data that did not change are not fetched twice.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from beamtide.client.client import Client
from beamtide.client.lavue_stream import Picture, topic_of
from beamtide.client.snapshot import newest_scan
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.gridding import by_order, runs_back_and_forth
from beamtide.messages.metadata import Scan, ScanState
from beamtide.messages.results import DatasetHeader, ProductState

MICROMETRES = 1e6
Arrays = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class Gallery:
    """The images of one scan."""

    client: Client
    scan: str
    pictures: dict[str, Picture] = field(default_factory=dict)
    seen: dict[str, ProductState] = field(default_factory=dict)
    """Each pipeline's product, as of the last call."""
    rows: dict[str, NDArray[Any] | None] = field(default_factory=dict)
    """The rows of each dataset that were fetched; None: it has more than one number per index, so it is no map."""
    previews: dict[str, int] = field(default_factory=dict)

    def look(self) -> dict[str, Picture]:
        """Return all images as they are now; only new data are fetched."""
        state = self.client.scans(self.scan)[0]
        for pipeline, product in self.client.shown(self.scan, self.client.products(self.scan)).items():
            if self.seen.get(pipeline) != product and not product.filed:
                with contextlib.suppress(BadInput):  # its results were filed meanwhile: keep the images we have
                    self._take(state, product)
                    self.seen[pipeline] = product
        for name in self.client.deployment.pipelines:
            shown, arrays = self.client.preview(self.scan, name, self.previews.get(name, 0))
            if arrays:
                self.previews[name] = shown.number
                self._hang(name, arrays, shown.number, f"{self.scan} {name} {shown.progress:.0%}")
        return self.pictures

    def _take(self, state: ScanState, product: ProductState) -> None:
        """Fetch the new rows of a product's maps; datasets of the whole scan are merged each time, so only at the end."""
        pipeline, before = product.product.pipeline, self.seen.get(product.product.pipeline)
        same = before is not None and (before.product, before.corrections) == (product.product, product.corrections)
        for header in product.datasets:
            name = f"{pipeline}/{header.name}"
            if header.per == "index" and (rows := self._grown(name, product, same=same)) is not None:
                snake = self._is_snake(pipeline, state)
                self.pictures[topic_of(f"{pipeline}_{header.name}")] = _map(rows, state.scan, snake, header, product.version)
        if product.complete >= state.points:
            whole = [header.name for header in product.datasets if header.per == "scan" and "text" not in header.attributes]
            arrays = {name: self._fetch(f"{pipeline}/{name}", product, 0, product.complete) for name in whole}
            self._hang(pipeline, arrays, product.version, f"{self.scan} {pipeline}")

    def _is_snake(self, pipeline: str, state: ScanState) -> bool:
        """Whether every second line runs backwards: as the positions so far show, as the pipeline file says, or the scan."""
        config = self.client.deployment.pipelines.get(pipeline)
        x, y = (self.rows.get(f"{config.positions if config else ''}/{axis}") for axis in "xy")
        seen = None if x is None or y is None else runs_back_and_forth(x, y, state.scan.shape)
        said = config.snake if config else None
        return next(one for one in (seen, said, state.scan.snake) if one is not None)

    def _grown(self, name: str, product: ProductState, *, same: bool) -> NDArray[Any] | None:
        """Return the rows of a dataset so far, fetching only new ones; None if there are none, or it is no map."""
        if not same:
            self.rows.pop(name, None)
        if not product.complete:
            return None
        if name not in self.rows:  # one row tells whether it is a map
            first = self._fetch(name, product, 0, 1)
            self.rows[name] = None if first.ndim > 1 else first
        have = self.rows[name]
        if have is not None and product.complete > len(have):
            new = self._fetch(name, product, len(have), product.complete)
            self.rows[name] = have = np.concatenate([have, new])
        return have

    def _fetch(self, name: str, product: ProductState, start: int, stop: int) -> NDArray[Any]:
        return self.client.fetch(self.scan, name, start, stop, product.product.settings).values

    def _hang(self, pipeline: str, arrays: Arrays, version: int, title: str) -> None:
        for name, values in arrays.items():
            real = np.abs(values) if values.dtype.kind == "c" else values
            real = real[0] if real.ndim == 3 else real
            if 1 <= real.ndim <= 2 and real.size > 1:
                labels, scales = _axes(arrays, name, real)
                self.pictures[topic_of(f"{pipeline}_{name}")] = Picture(real, version, f"{title} {name}", labels, scales)


class Galleries:
    """The images of one scan, or always of the newest. Use it in a `with` block."""

    def __init__(self, deployment: Deployment, scan: str = "") -> None:
        self._scan, self._client = scan, Client(deployment)
        self._now: Gallery | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def look(self) -> dict[str, Picture]:
        """Return all pictures as they are now; none before the first scan. BadInput: there is no such scan."""
        if not (name := newest_scan(self._client, self._scan)):
            return {}
        if self._now is None or self._now.scan != name:
            self._now = Gallery(self._client, name)
        return self._now.look()


def _map(rows: NDArray[Any], scan: Scan, snake: bool, header: DatasetHeader, version: int) -> Picture:
    slow, fast = (*scan.axes, "line", "point")[-2:] if len(scan.axes) < 2 else scan.axes[-2:]
    values = by_order(rows, scan.shape, snake=snake)
    return Picture(values, version, f"{scan.id} {header.name} ({header.units or '1'})", (fast, slow, "", ""))


def _axes(arrays: Arrays, name: str, values: NDArray[Any]) -> tuple[tuple[str, str, str, str], tuple[float, float, float, float]]:
    """Return labels and scales of an image: in micrometres for an object with axes in metres, else pixels."""
    x, y = arrays.get("object_x"), arrays.get("object_y")
    if x is None or y is None or not name.startswith("object") or values.shape != (len(y), len(x)):
        return ("", "", "", ""), (0.0, 0.0, 1.0, 1.0)
    left, top, across, down = (MICROMETRES * float(one) for one in (x[0], y[0], x[1] - x[0], y[1] - y[0]))
    return ("x", "y", "um", "um"), (left, top, across, down)
