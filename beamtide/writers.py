"""What a writer is: a function that makes files of a finished product. `write: [NAME]` in a pipeline file asks for it.

    def write(product: FinishedProduct, out: Outputs) -> None:
        out.path(".txt").write_text(", ".join(product.results))

It is found by the entry point group "beamtide.writers"; our own formats are registered there too. It never names a place:
`out.path(".txt")` returns a hidden path that it fills, as a file or as a folder. When the function has returned, everything that
it made is synced and gets its name, one rename each; when it raised, or its process died, nothing of it is seen and what an
earlier attempt wrote stays. `BadInput` says that this product cannot be written so: it is not tried again, and its sentence is
shown. Whatever else is raised is tried again. Other writers of the same product do not notice.

Tests for its author: `beamtide.testing.writer.check_writer`.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import h5py
from numpy.typing import NDArray

from beamtide.messages.metadata import ScanState, SettingsDocument
from beamtide.messages.results import Hole, Product
from beamtide.results.reading import ScanResults

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a map: a regular grid, and what was measured (same shape as the map) where it is known."""

    name: str
    values: Array
    units: str
    measured: Array | None = None

    @property
    def step(self) -> float:
        """The distance of two neighbours; 1 for a single one."""
        return float(self.values[1] - self.values[0]) if len(self.values) > 1 else 1.0


@dataclass(frozen=True, slots=True)
class Positions:
    """Where each index was measured: x and y of the sample, by index, NaN where unknown."""

    x: Array
    y: Array
    units_x: str = "um"
    units_y: str = "um"


@dataclass(frozen=True, slots=True)
class Map:
    """Values on axes, slowest first."""

    name: str
    values: Array
    units: str
    axes: tuple[Axis, ...]
    title: str = ""
    warning: str = ""
    """What viewers must know about it; stands below a picture of it."""


@dataclass(frozen=True, slots=True)
class FinishedProduct:
    """What one pipeline made of one scan, whole: every index has a result, or stands in a hole with its reason.

    The arrays are in `file`, and are read when they are wanted, so that nobody holds a large scan in memory.
    """

    product: Product
    """Scan, pipeline, and the digest of the settings."""
    modality: str
    scan: ScanState
    """Shape, axes and times of the scan; `scan.points` is the number of indexes."""
    file: pathlib.Path
    """The result file (NeXus, see docs/modalities.md). Only to read, and only while the writer works."""
    maps: tuple[Map, ...] = ()
    """Every dataset with one number per index of a two-dimensional scan, on its axes; NaN in holes."""
    positions: Positions | None = None
    """x and y of every index, if the pipeline file names `positions`."""
    document: SettingsDocument | None = None
    """The settings; None where the metadata server does not know them any more."""
    calibration: Mapping[str, bytes] = field(default_factory=dict)
    """Calibration files: name -> content."""
    corrections: int = 0
    """How often a late result took the place of a hole; the product is written again each time."""

    @property
    def results(self) -> ScanResults:
        """Return the datasets as users read them: "pipeline/dataset" -> values, units, axes and coordinates."""
        return ScanResults(self.product.scan, {self.product.pipeline: self.file})

    @property
    def holes(self) -> tuple[Hole, ...]:
        """Return the indexes without a result, and why. Rows there are NaN; integers are 0, like any other 0."""
        with h5py.File(self.file, "r") as root:
            table = root["entry/holes"]
            rows = zip(table["start"][()], table["stop"][()], table["reason"].asstr()[()], strict=True)
            return tuple(Hole(start=int(start), stop=int(stop), reason=str(reason)) for start, stop, reason in rows)


class Outputs(Protocol):
    """Where a writer may write."""

    def path(self, suffix: str, folder: str = "") -> pathlib.Path:
        """Return a path that is not there yet, to be made as a file or as a folder.

        It becomes `STEM SUFFIX` beside the other files of the scan, or in a folder there ("maps"). STEM is the name of the
        pipeline (with some digits of the settings, if the scan was processed with others before). Letters of `suffix` that do
        not suit a file name become "_". BadInput: another writer of this product has that name.
        """
        ...


class FormatWriter(Protocol):
    """Makes files of a finished product."""

    def __call__(self, product: FinishedProduct, out: Outputs) -> None:
        """Write it."""
        ...
