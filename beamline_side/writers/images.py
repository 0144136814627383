"""Images of a whole scan: two-dimensional per-scan datasets that name their axes, such as a reconstructed object.

The attribute `axes` of a dataset ("object_y object_x") names two others as its axes; those are one-dimensional, regular, and in
the same group. If there is an object and its probe, the same file also has the names of a CXI file, as links, so that readers of
CXI find image_1 (object) and image_2 (probe) without a copy.

Source of the CXI names: CXI specification 1.6 (F. R. N. C. Maia, Nature Methods 9 (2012) 854).
"""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_side.writers import rows
from beamline_side.writers.hdf5 import show_map
from beamline_side.writers.maps import Axis, Map
from beamtide.messages.results import DatasetHeader
from beamtide.results.verdict import warning_of

Array = NDArray[Any]
Constants = Mapping[str, tuple[DatasetHeader, Array]]
CXI_VERSION = 160


def draw(entry: h5py.Group, constants: Constants) -> list[Map]:
    """Write each image as NXdata, the first one as what viewers open on; return them for pictures."""
    drawn, warning = [], warning_of(header for header, _ in constants.values())
    for name, (header, array) in constants.items():
        axes = _axes(header, array, constants)
        if not axes:
            continue
        title = f"{header.long_name or name} ({header.units or '1'})" + (f"; {warning}" if warning else "")
        drawn.append(Map(name, array, header.units or "1", axes, title, warning))
        show_map(rows.group(entry, "images", "NXcollection"), drawn[-1])
    if drawn:
        entry.attrs["default"] = f"images/{drawn[0].name}"
    return drawn


def link_as_cxi(root: h5py.Group) -> None:
    """Add the CXI names of object and probe, if the file has them."""
    data = root["entry/data"]
    if not {"object", "probe", "pixel_size"} <= set(data):
        return
    root["cxi_version"] = np.int64(CXI_VERSION)
    entry = rows.group(root, "entry_1", "NXentry")
    pixel = data["pixel_size"][()]
    for number, name in ((1, "object"), (2, "probe")):
        image = rows.group(entry, f"image_{number}", "NXcollection")
        image["data"] = h5py.SoftLink(f"/entry/data/{name}")
        rows.field(image, "data_space", "real")
        rows.field(image, "data_type", "complex transmission" if name == "object" else "probe modes")
        height, width = data[name].shape[-2:]
        rows.field(image, "image_size", np.array([width * pixel[1], height * pixel[0], 0.0]), "m")
        image["process_1"] = h5py.SoftLink("/entry/process")
    entry["data_1"] = h5py.SoftLink("/entry_1/image_1")


def _axes(header: DatasetHeader, array: Array, constants: Constants) -> tuple[Axis, ...]:
    names = header.attributes.get("axes", "").split()
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(names) != 2 or not set(names) <= constants.keys():
        return ()
    found = [(name, *constants[name]) for name in names]
    if tuple(len(values) for _, _, values in found) != array.shape:
        return ()
    return tuple(Axis(name, values, about.units) for name, about, values in found)
