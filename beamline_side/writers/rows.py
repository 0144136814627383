"""Writes arrays of results into HDF5 datasets: the layout of rows, units and checksums in a file.

A per-index dataset has the length of the scan from the beginning, filled with NaN (0 for integers), so that it need not grow
while it is read; chunks hold about 256 KiB of whole rows. Every array carries `units`, in a finished file also its checksum (see
`beamtide.results.checksum`).
"""

import math
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.messages.results import DatasetHeader
from beamtide.results import checksum

Array = NDArray[Any]
CHUNK = 256 << 10


def group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """Return a group with a NeXus class, made with its parents ("area/Fe_K": collections) if it is not there."""
    *above, last = name.split("/")
    for step in above:
        parent = parent[step] if step in parent else _made(parent, step, "NXcollection")
    made = parent[last] if last in parent else _made(parent, last, nx_class)
    made.attrs.update(attributes)
    return made


def _made(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    made = parent.create_group(name, track_order=True)
    made.attrs["NX_class"] = nx_class
    return made


def dataset(parent: h5py.Group, header: DatasetHeader, array: Array, points: int) -> h5py.Dataset:
    """Make the dataset that `header` describes; `array` shows dtype and shape (one row per index, or the whole)."""
    folder, _, name = header.name.rpartition("/")
    where = group(parent, folder, "NXcollection") if folder else parent
    if header.per == "index":
        made = _table(where, name, array, points)
    else:
        made = where.create_dataset(name, data=header.attributes.get("text", array))
    attributes = {key: value for key, value in header.attributes.items() if key != "text"}
    made.attrs.update({"units": header.units or "1", "long_name": header.long_name or header.name, **attributes})
    return made


def _table(where: h5py.Group, name: str, array: Array, points: int) -> h5py.Dataset:
    row = array.shape[1:]
    size = max(1, math.prod(row) * array.dtype.itemsize)
    chunk = (max(1, min(max(points, 1), CHUNK // size)), *(max(1, length) for length in row))
    fill = array.dtype.type(np.nan if array.dtype.kind in "fc" else 0)  # h5py makes no complex number of a plain NaN
    shape, most = (points, *row), (None, *row)
    return where.create_dataset(name, shape, array.dtype, chunks=chunk, maxshape=most, fillvalue=fill)


def put(table: h5py.Dataset, start: int, array: Array) -> None:
    """Write rows at their index; a scan that became longer than announced makes the dataset longer."""
    if array.shape[1:] != table.shape[1:]:
        raise ValueError(f"rows of {table.name} had shape {table.shape[1:]}, and now {array.shape[1:]}")
    if start + len(array) > table.shape[0]:
        table.resize(start + len(array), axis=0)
    table[start : start + len(array)] = array


def field(parent: h5py.Group, name: str, value: Any, units: str = "", **attributes: Any) -> h5py.Dataset:
    """Write a whole dataset."""
    made = parent.create_dataset(name, data=value)
    if units:
        made.attrs["units"] = units
    made.attrs.update(attributes)
    return made


def seal(root: h5py.Group) -> None:
    """Write the checksum of every dataset below; datasets with several names are read once."""

    def one(_: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            item.attrs[checksum.ATTRIBUTE] = checksum.of_dataset(item)

    root.visititems(one)
