"""The live file, which grows while a scan runs: HDF5 in SWMR mode, so that a viewer may read it at any time.

Theory: a live file is derived from the sink and may be deleted. Every group, dataset and attribute exists before SWMR mode
starts; a dataset that appears later is only in the finished file. Rows are at their index from the beginning; all indexes below
`entry/complete` have verdicts. Each append is flushed, data before `complete`, so a reader never sees a count without its rows;
after a SIGKILL the file can be read up to its last flush.
"""

import contextlib
import json
import pathlib
import shutil
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_side.writers import maps, rows
from beamline_side.writers.atomic import discard
from beamline_side.writers.product import Batch, merged, rows_of
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import DatasetHeader, Product
from beamtide.writers import FinishedProduct, Outputs

Array = NDArray[Any]


def write(product: FinishedProduct, out: Outputs) -> None:
    """Give the finished result file its name: the writer "hdf5"."""
    path = out.path(".h5")
    try:
        path.hardlink_to(product.file)
    except OSError:  # a file system without links
        shutil.copyfile(product.file, path)


class LiveFile:
    """The live file of one product; made from its first results, which are appended like all others."""

    def __init__(self, path: pathlib.Path, product: Product, scan: ScanState, first: list[Batch]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.path, self._scan = path, scan
        self._tables: dict[str, h5py.Dataset] = {}
        self._maps: dict[str, h5py.Dataset] = {}
        self._merged: dict[str, Array] = {}
        self._file = h5py.File(path, "w", libver=("v110", "v110"), track_order=True)
        try:
            self._prepare(product, first)
        except BaseException:
            self.drop()
            raise

    def append(self, results: list[Batch], complete: int) -> None:
        """Write results and flush them; all indexes below `complete` have verdicts then."""
        touched: dict[str, h5py.Dataset] = {}
        for request, arrays in results:
            for header in request.datasets:
                if header.name in self._tables:
                    self._put(header, request.task.start, rows_of(request, header, arrays))
                    touched[header.name] = self._tables[header.name]
        for name in touched.keys() & self._merged.keys():
            self._tables[name][...] = self._merged[name]
        for name, table in touched.items():
            table.flush()
            if name in self._maps:
                self._maps[name].flush()
        self._complete[()] = complete
        self._complete.flush()

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def drop(self) -> None:
        """Close and delete the file; never raises, because it is called after errors."""
        with contextlib.suppress(Exception):
            self._file.close()
        discard(self.path)

    def _prepare(self, product: Product, first: list[Batch]) -> None:
        scan, root = self._scan.scan, self._file
        root.attrs.update({"NX_class": "NXroot", "default": "entry"})
        entry = rows.group(root, "entry", "NXentry")
        entry.attrs.update({"scan": product.scan, "pipeline": product.pipeline, "settings": product.settings})
        entry.attrs.update({"shape": json.dumps(scan.shape), "snake": scan.snake, "points": self._scan.points})
        rows.field(entry, "title", f"{product.pipeline} of {product.scan} (running)")
        self._complete = rows.field(entry, "complete", np.int64(0), "1")
        data = rows.group(entry, "data", "NXcollection")
        for header, array in _seen(first):
            if header.per == "index" or (header.merge in ("sum", "max", "first") and "text" not in header.attributes):
                self._foresee(entry, data, header, array)
        if self._maps:
            entry.attrs["default"] = "maps/" + self._shown_first()
        root.flush()
        root.swmr_mode = True

    def _foresee(self, entry: h5py.Group, data: h5py.Group, header: DatasetHeader, array: Array) -> None:
        if header.per == "scan":
            array = merged(None, header, array)
        self._tables[header.name] = rows.dataset(data, header, array, self._scan.points)
        scan = self._scan.scan
        if header.per == "index" and array.ndim == 1 and len(scan.shape) == 2 and array.dtype.kind in "fiu":
            named = maps.Map(header.name, maps.grid(array[:0], scan), header.units or "1", maps.axes_of(scan, None))
            self._maps[header.name] = show_map(rows.group(entry, "maps", "NXcollection"), named)

    def _shown_first(self) -> str:
        wanted = (name for name in self._maps if self._tables[name].attrs.get("show") == "first")
        return next(wanted, next(iter(self._maps)))

    def _put(self, header: DatasetHeader, start: int, array: Array) -> None:
        if header.per == "scan":
            self._merged[header.name] = merged(self._merged.get(header.name), header, array)
            return
        rows.put(self._tables[header.name], start, array)
        if header.name in self._maps:
            for which, where in maps.line_slices(self._scan.scan, start, start + len(array)):
                self._maps[header.name][where] = array[which]


def show_map(parent: h5py.Group, shown: maps.Map) -> h5py.Dataset:
    """Write a map, or a curve, as NXdata that viewers plot at once; return its signal."""
    kind = "image" if shown.values.ndim == 2 else "spectrum"
    made = rows.group(parent, shown.name, "NXdata", signal="data", axes=[axis.name for axis in shown.axes], interpretation=kind)
    made.attrs["title"] = shown.title or f"{shown.name} ({shown.units})"
    signal = rows.field(made, "data", shown.values, shown.units, long_name=f"{shown.name} ({shown.units})", interpretation=kind)
    for dimension, axis in enumerate(shown.axes):
        rows.field(made, axis.name, axis.values, axis.units, long_name=f"{axis.name} ({axis.units})")
        made.attrs[f"{axis.name}_indices"] = np.int32(dimension)
        if axis.measured is not None:
            label = f"measured {axis.name} ({axis.units})"
            rows.field(made, f"{axis.name}_measured", axis.measured, axis.units, long_name=label)
    return signal


def _seen(first: list[Batch]) -> list[tuple[DatasetHeader, Array]]:
    seen: dict[str, tuple[DatasetHeader, Array]] = {}
    for request, arrays in first:
        for header in request.datasets:
            seen.setdefault(header.name, (header, rows_of(request, header, arrays)))
    return list(seen.values())
