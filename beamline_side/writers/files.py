"""The files of one product: a live file while the scan runs, then the finished file with its images.

Names: the first settings of a pipeline get `<pipeline>.h5`, others lie beside it under their digest (see
`beamtide.results.layout`). A file under the plain name that is not ours is not touched. Images are written before the result file
gets its name, so every result file has its images. A file says how many corrections it has, so a file that lacks some is written
again.
"""

import contextlib
import pathlib

import h5py

from beamline_side.writers.atomic import ensure_room, hidden, plainly, replacing
from beamline_side.writers.cxi import write_cxi
from beamline_side.writers.hdf5 import LiveFile
from beamline_side.writers.jpeg import write_jpeg
from beamline_side.writers.maps import Map
from beamline_side.writers.nexus import write_result
from beamline_side.writers.product import Batch, Content
from beamline_side.writers.ptypy import write_positions
from beamline_side.writers.tiff import write_tiff
from beamtide.errors import BadInput
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import Product
from beamtide.results import layout


class ProductFiles:
    """Writes one product; `taken` are live files of the same scan that are in use for other settings."""

    def __init__(
        self,
        processed: pathlib.Path,
        product: Product,
        scan: ScanState,
        formats: tuple[str, ...],
        taken: frozenset[pathlib.Path] = frozenset(),
    ) -> None:
        self.product, self.formats = product, formats
        self._processed, self._scan = processed, scan
        self._names = [name for name in _names(layout.live_file, processed, product) if name not in taken]
        self._live: LiveFile | None = None
        self.live = self._names[0]
        self.cursor = 0
        """The first index that the live file does not have yet."""

    def append(self, results: list[Batch], following: int) -> None:
        """Add results to the live file; `following` is the index after them."""
        size = sum(array.nbytes for _, arrays in results for array in arrays.values())
        ensure_room(self.live.parent, 2 * size)
        with plainly(self.live):
            if self._live is None and any(request.datasets for request, _ in results):
                self._live = LiveFile(self.live, self.product, self._scan, results)
            if self._live is not None:
                self._live.append(results, following)
        self.cursor = following

    def write(self, content: Content) -> pathlib.Path:
        """Write images and result file, replacing an older one of the same product, and return its path."""
        result = result_name(self._processed, self.product)
        ensure_room(result.parent, self.live.stat().st_size if self.live.exists() else 0)
        if "hdf5" not in self.formats:
            part = hidden(result)
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._beside(result, part, content, write_result(part, content))
            finally:
                part.unlink(missing_ok=True)
            return result
        refusal = None
        with replacing(result) as part:
            drawn = write_result(part, content)
            try:
                self._beside(result, part, content, drawn)
            except BadInput as error:  # a missing package must not prevent the result file
                refusal = error
        if refusal is not None:
            raise refusal
        return result

    def drop(self) -> None:
        """Delete the live file, also one that an earlier writer left; never raises."""
        if self._live is not None:
            self._live.drop()
            self._live = None
        for name in self._names:
            with contextlib.suppress(OSError):
                name.unlink(missing_ok=True)

    def _beside(self, result: pathlib.Path, part: pathlib.Path, content: Content, drawn: list[Map]) -> None:
        """Write the files beside the result file, which is `part` until it gets its name."""
        if "ptypy" in self.formats:
            with replacing(layout.positions_file(result)) as positions:
                write_positions(positions, part, content.positions)
        if "cxi" in self.formats:
            with replacing(layout.cxi_file(result)) as reconstruction:
                write_cxi(reconstruction, part, content.document)
        facts = {"scan": self.product.scan, "pipeline": self.product.pipeline, "settings": self.product.settings}
        for shown in drawn:
            if "tiff" in self.formats:
                write_tiff(layout.map_file(result, shown.name), shown, facts)
            if "jpeg" in self.formats:
                caption = f"{self.product.scan} {self.product.pipeline} {shown.title}"
                write_jpeg(layout.preview_file(result, shown.name), shown, caption)


def finished_file(
    processed: pathlib.Path, product: Product, scan: ScanState, corrections: int = 0, positions: str | None = None
) -> pathlib.Path | None:
    """Return the finished file of exactly this product and this start of the scan, with so many corrections, if it exists.

    `positions` are the settings of the positions of its maps; None: any.
    """
    found = ((path, written_for(path)) for path in _names(layout.result_file, processed, product))
    wanted = product, scan.started, scan.points
    good = ((path, facts) for path, facts in found if facts and facts[:3] == wanted and facts[3] >= corrections)
    return next((path for path, facts in good if positions is None or facts[4] == positions), None)


def result_name(processed: pathlib.Path, product: Product) -> pathlib.Path:
    """Return where the result file of a product belongs: the plain name, unless something else lies there."""
    plain, beside = _names(layout.result_file, processed, product)
    facts = written_for(plain) if plain.exists() else None
    return plain if not plain.exists() or (facts is not None and facts[0] == product) else beside


def written_for(path: pathlib.Path) -> tuple[Product, float, int, int, str] | None:
    """Return product, start of the scan, points, corrections and settings of the positions; None if it is not one of ours."""
    with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(path, "r") as root:
        facts = root["entry"].attrs
        product = Product(scan=facts["scan"], pipeline=facts["pipeline"], settings=facts["settings"])
        corrections, positions = int(facts.get("corrections", 0)), str(facts.get("positions_settings", ""))
        return product, float(facts["scan_started"]), int(facts["points"]), corrections, positions
    return None


def _names(rule: layout.FileRule, processed: pathlib.Path, product: Product) -> tuple[pathlib.Path, pathlib.Path]:
    plain = rule(processed, product.scan, product.pipeline)
    return plain, rule(processed, product.scan, product.pipeline, product.settings)
