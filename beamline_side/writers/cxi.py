"""Writes a reconstruction as a CXI file, for programs that do not read NeXus.

    /cxi_version                                   160
    /entry_1/image_1/data                          object, complex (row, column); image_size, x and y in m
    /entry_1/image_1/process_1/command             recipe, and beside it all settings, error by iteration, verdict
    /entry_1/image_2/data                          probe modes, complex (mode, row, column), strongest first
    /entry_1/sample_1/geometry_1/translation       where the beam was, refined: (index, x y z) in m
    /entry_1/sample_1/geometry_2/translation       the same as it was measured
    /entry_1/instrument_1/source_1/energy          J; and detector_1 with distance and pixel, where the settings say them

Source: the CXI file format, version 1.6 (F. R. N. C. Maia, Nature Methods 9 (2012) 854).
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_side.writers import rows
from beamtide import clock
from beamtide.errors import BadInput
from beamtide.formats.ptychography import JOULE_PER_KEV
from beamtide.messages.metadata import SettingsDocument
from beamtide.results.verdict import ADVICE, VERDICT
from beamtide.writers import FinishedProduct, Outputs

VERSION = 160
NEEDED = ("object", "object_x", "object_y", "probe", "pixel_size", "error")
PLACES = ("position_x", "position_y")


def write(product: FinishedProduct, out: Outputs) -> None:
    """Write a reconstruction: the writer "cxi"."""
    write_cxi(out.path(".cxi"), product.file, product.document)


def write_cxi(path: pathlib.Path, result: pathlib.Path, document: SettingsDocument | None) -> None:
    """Write the CXI file beside a finished result file; BadInput when that holds no reconstruction."""
    with h5py.File(result, "r") as found, h5py.File(path, "w", libver=("earliest", "v110")) as file:
        data, settings = found["entry/data"], json.loads(document.values) if document else {}
        if missing := sorted({*NEEDED, *(f"{name}_used" for name in PLACES)} - data.keys()):
            raise BadInput(f"write: cxi is for reconstructions, and {found['entry'].attrs['pipeline']} has no {missing[0]}")
        file["cxi_version"] = VERSION
        entry = rows.group(file, "entry_1", "NXentry")
        entry["title"] = f"{found['entry'].attrs['scan']} {found['entry'].attrs['pipeline']}"
        _image(entry, "image_1", data["object"][()], data)
        _image(entry, "image_2", data["probe"][()], data)
        _process(rows.group(entry, "image_1/process_1", "NXprocess"), data, settings)
        for number, kind in enumerate(("refined", "used"), 1):
            geometry = rows.group(entry, f"sample_1/geometry_{number}", "NXcollection")
            x, y = (data[f"{name}_{kind}"][()] for name in PLACES)
            rows.field(geometry, "translation", np.stack([x, y, np.zeros_like(x)], axis=1), "m")
        _instrument(entry, settings)


def _image(entry: h5py.Group, name: str, values: NDArray[Any], data: h5py.Group) -> None:
    image, (height, width) = rows.group(entry, name, "NXdata", signal="data"), values.shape[-2:]
    pixel_y, pixel_x = (float(length) for length in data["pixel_size"][()])
    image["data"], image["data_space"], image["is_fft_shifted"] = values, "real", 0
    rows.field(image, "image_size", np.array([width * pixel_x, height * pixel_y, 0.0]), "m")
    if values.ndim == 2:
        image.attrs["axes"] = ["y", "x"]
        for axis in "xy":
            rows.field(image, axis, data[f"object_{axis}"][()], "m")


def _process(process: h5py.Group, data: h5py.Group, settings: Mapping[str, Any]) -> None:
    process["program"], process["date"] = "beamtide", clock.iso()
    process["command"] = str(settings.get("recipe", ""))
    process["settings"] = json.dumps(settings, sort_keys=True)
    rows.field(process, "error", data["error"][()], "1")
    for name in (VERDICT, ADVICE):
        if name in data:
            process[name.rpartition("/")[2]] = data[name].asstr()[()]


def _instrument(entry: h5py.Group, settings: Mapping[str, Any]) -> None:
    """Write energy, distance and pixel where the settings have them; values from the frames' file are not repeated."""
    instrument = rows.group(entry, "instrument_1", "NXinstrument")
    source, detector = rows.group(instrument, "source_1", "NXsource"), rows.group(instrument, "detector_1", "NXdetector")
    if settings.get("energy") is not None:
        rows.field(source, "energy", np.float64(settings["energy"] * JOULE_PER_KEV), "J")
    if settings.get("distance") is not None:
        rows.field(detector, "distance", np.float64(settings["distance"]), "m")
    if settings.get("detector_pixel") is not None:
        for axis in "xy":
            rows.field(detector, f"{axis}_pixel_size", np.float64(1e-6 * settings["detector_pixel"]), "m")
