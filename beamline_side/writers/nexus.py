"""The finished result file of a product: self-describing NeXus, readable by every HDF5 library of the last ten years.

    entry            NXentry; `default` leads to a map, so a viewer opens on a picture
      data           every dataset under its own name, rows by acquisition index ("area/Fe_K" lies in a group "area")
      maps, curves   the same, by scan order on calibrated axes, one NXdata each (two- and one-dimensional scans)
      images         per-scan datasets with two axes, such as a reconstructed object (see `images`)
      spectra        per-scan datasets with their energy axis
      process        program, settings, calibration files, versions, one row of provenance per task
      holes          indexes without a result, and why

What a modality wants to be shown, it says in the attributes of its datasets: `show` "first" (of several maps, the one with the
largest sum), `axis` (the dataset that a spectrum lies over), `axes` (those of an image).

The file is a function of what the sink keeps: results are copied batch by batch, so memory does not grow with the scan;
only datasets with one number per index are held for the maps. `write_result` puts a whole file at the path it is given;
hidden name, sync and rename are the caller's (`atomic.replacing`).
"""

import json
import math
import pathlib
from dataclasses import dataclass, field
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from beamline_side.writers import azint, images, maps, provenance, rows
from beamline_side.writers.hdf5 import show_map
from beamline_side.writers.product import Content, holes_of, merged, rows_of
from beamtide import clock
from beamtide.messages.metadata import Scan
from beamtide.messages.results import DatasetHeader, Hole, StoreRequest

Array = NDArray[Any]
MAPPED = "fiu"
"""Kinds of numbers that can be drawn as a map."""


@dataclass(slots=True)
class _Copy:
    """What was found out while the results were copied."""

    tables: dict[str, tuple[DatasetHeader, h5py.Dataset]] = field(default_factory=dict)
    constants: dict[str, tuple[DatasetHeader, Array]] = field(default_factory=dict)
    holes: list[Hole] = field(default_factory=list)
    tasks: list[StoreRequest] = field(default_factory=list)


def write_result(path: pathlib.Path, content: Content) -> list[maps.Map]:
    """Write a complete, checksummed result file at `path`, and return its maps for TIFF and JPEG."""
    with h5py.File(path, "w", libver=("earliest", "v110"), track_order=True) as root:
        root.attrs.update({"NX_class": "NXroot", "default": "entry", "file_time": clock.iso()})
        entry = rows.group(root, "entry", "NXentry")
        _describe(entry, content)
        data = rows.group(entry, "data", "NXcollection")
        copy = _copy(data, content)
        drawn = _draw(entry, content, copy)
        _spectra(entry, data, copy)
        drawn += images.draw(entry, copy.constants)
        provenance.write(entry, content, copy.tasks, copy.holes)
        azint.write(root, content, {name: header for name, (header, _) in (*copy.tables.items(), *copy.constants.items())})
        images.link_as_cxi(root)
        rows.seal(root)
    return [shown for shown in drawn if shown.values.ndim == 2]


def _describe(entry: h5py.Group, content: Content) -> None:
    product, scan = content.product, content.scan
    names = {"scan": product.scan, "pipeline": product.pipeline, "settings": product.settings, "modality": content.modality}
    entry.attrs.update({**names, "points": scan.points, "scan_started": scan.started, "snake": scan.scan.snake})
    entry.attrs.update({"corrections": content.corrections, "positions_settings": content.positions_settings})
    entry.attrs.update({"shape": json.dumps(scan.scan.shape), "axes": json.dumps(scan.scan.axes)})
    rows.field(entry, "title", scan.scan.info.get("title") or f"{product.pipeline} of {product.scan}")
    rows.field(entry, "entry_identifier", product.scan)
    for name, moment in (("start_time", scan.started), ("end_time", scan.ended)):
        if moment:
            rows.field(entry, name, clock.iso(moment))
    if sample := scan.scan.info.get("sample"):
        rows.field(rows.group(entry, "sample", "NXsample"), "name", sample)
    known = rows.group(entry, "scan_info", "NXcollection")
    for name, value in scan.scan.info.items():
        known.attrs[name] = value


def _copy(data: h5py.Group, content: Content) -> _Copy:
    copy = _Copy()
    for request, arrays in content.results:
        copy.tasks.append(msgspec.structs.replace(request, datasets=()))
        copy.holes += holes_of(request)
        for header in request.datasets:
            array = rows_of(request, header, arrays)
            if header.per == "scan":
                before = copy.constants.get(header.name)
                copy.constants[header.name] = header, merged(before[1] if before else None, header, array)
                continue
            if header.name not in copy.tables:
                copy.tables[header.name] = header, rows.dataset(data, header, array, content.scan.points)
            rows.put(copy.tables[header.name][1], request.task.start, array)
    for header, array in copy.constants.values():
        rows.dataset(data, header, array, content.scan.points)
    return copy


def _draw(entry: h5py.Group, content: Content, copy: _Copy) -> list[maps.Map]:
    scan = content.scan.scan
    if len(scan.shape) > 2 or not scan.shape:
        scan = Scan(id=scan.id, shape=(content.scan.points,))
    place = "maps" if len(scan.shape) == 2 else "curves"
    flat = {name: found for name, found in copy.tables.items() if found[1].ndim == 1 and found[1].dtype.kind in MAPPED}
    positions = content.positions or _own_positions(flat)
    shown = maps.as_measured(scan, positions)
    if shown.snake != scan.snake:
        back = "back and forth (a snake scan)" if shown.snake else "all forward"
        said = f"by the measured positions, lines ran {back}; the scan was told otherwise"
        entry.attrs.update({"snake": shown.snake, "snake_seen": said})
    scan = shown
    axes = maps.axes_of(scan, positions)
    drawn = []
    for name, (header, table) in flat.items():
        title = f"{header.long_name or name} ({header.units or '1'})"
        drawn.append(maps.Map(name, _with_holes(table, scan, copy.holes), header.units or "1", axes, title))
        show_map(rows.group(entry, place, "NXcollection"), drawn[-1])
    if drawn:
        wanted = {name for name, (header, _) in flat.items() if header.attributes.get("show") == "first"}
        entry.attrs["default"] = f"{place}/{_default(drawn, wanted)}"
    return drawn


def _with_holes(table: h5py.Dataset, scan: Scan, holes: list[Hole]) -> Array:
    """Return one number per index on the scan's grid; integers have no NaN of their own, so holes become NaN here."""
    values = table[()]
    if table.dtype.kind != "f":
        values = values.astype(float)
        for hole in holes:
            values[hole.start : hole.stop] = np.nan
    return maps.grid(values, scan)


def _own_positions(flat: dict[str, tuple[DatasetHeader, h5py.Dataset]]) -> maps.Positions | None:
    if not {"x", "y"} <= flat.keys():
        return None
    (header_x, x), (header_y, y) = flat["x"], flat["y"]
    return maps.Positions(x[()], y[()], header_x.units, header_y.units)


def _default(drawn: list[maps.Map], wanted: set[str]) -> str:
    first = [shown for shown in drawn if shown.name in wanted]
    if first:
        return max(first, key=lambda shown: _total(shown.values)).name
    return next((shown.name for shown in drawn if shown.name == "x"), drawn[0].name)


def _total(values: Array) -> float:
    total = float(np.nansum(values))
    return total if math.isfinite(total) else -math.inf


def _spectra(entry: h5py.Group, data: h5py.Group, copy: _Copy) -> None:
    """Give every one-dimensional per-scan dataset an NXdata, unless it is the axis of another one.

    Its axis is the dataset that its attribute "axis" names; where there is none of that length, the channels' numbers.
    """
    said = [header.attributes for header, _ in copy.constants.values()]
    axes = {axis for one in said for axis in (*one.get("axes", "").split(), one.get("axis", ""))}
    for name, (header, array) in copy.constants.items():
        axis = header.attributes.get("axis", "")
        if name in axes or array.ndim != 1 or array.dtype.kind not in MAPPED or "text" in header.attributes:
            continue
        known = copy.constants.get(axis)
        fits = known is not None and known[1].shape == array.shape
        label = axis.rpartition("/")[2] if fits else "channel"
        made = rows.group(rows.group(entry, "spectra", "NXcollection"), name, "NXdata")
        made.attrs.update({"signal": "data", "axes": [label], "interpretation": "spectrum"})
        made.attrs["title"] = f"{header.long_name or name} ({header.units or '1'})"
        made["data"] = data[name]
        if fits:
            made[label] = data[axis]
        else:
            rows.field(made, label, np.arange(len(array)), "1", long_name="channel")
        if "default" not in entry.attrs:
            entry.attrs["default"] = f"spectra/{name}"
