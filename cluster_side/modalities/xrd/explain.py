"""Explains a poni file, for `beamtide settings check xrd`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import drawing, images, pixels
from cluster_side.modalities.base import Explanation
from cluster_side.modalities.xrd import frames, geometry, model
from cluster_side.modalities.xrd.integrate import IntegrationTable
from cluster_side.modalities.xrd.spec import AXES, XrdSettings

Array = NDArray[Any]


def explain(settings: XrdSettings, calibration: Mapping[str, pathlib.Path], sample: pathlib.Path | None) -> Explanation:
    """Say which geometry the file describes, what of it is not used, and what is wrong with it."""
    path = geometry.required(calibration)
    try:
        facts, ignored = _facts(settings, path, calibration), _ignored(path, settings)
    except BadInput as error:
        return Explanation({"file": str(path)}, wrong=(str(error),))
    try:
        image = images.read(sample, "sample") if sample else None
        if image is not None and settings.shape is None:
            settings = settings.model_copy(update={"shape": image.shape})
        ai = geometry.integrator(settings, calibration)
        mask = model.mask_of(ai, calibration)
        table = IntegrationTable(model.prepare(settings.model_copy(update={"engine": "fast"}), calibration), "pattern")
        picture = _picture(settings, (table, model.marks_of(ai)), image, mask) if image is not None else None
    except BadInput as error:
        return Explanation(facts, ignored, (str(error),))
    name, unit = AXES[settings.unit]
    facts |= {"marks": _marks(model.marks_of(ai))}
    facts |= {"image": f"{mask.shape[0]} rows x {mask.shape[1]} columns, {int(mask.sum())} pixels masked"}
    facts |= {"pattern": f"{name} from {table.radial[0]:.4g} to {table.radial[-1]:.4g} {unit} in {len(table.radial)} bins"}
    return Explanation(facts, ignored, picture=picture)


def _facts(settings: XrdSettings, path: pathlib.Path, calibration: Mapping[str, pathlib.Path]) -> dict[str, str]:
    found = geometry.poni(path, calibration)
    detector = found.detector
    stated = geometry.states_orientation(path)
    where = settings.orientation or (int(detector.orientation) if stated else None)
    return {
        "detector": f"{detector.name}, pixels of {1e6 * detector.pixel1:g} x {1e6 * detector.pixel2:g} µm (rows x columns)",
        "distance": f"{1e3 * found.dist:.3f} mm; rotations {found.rot1:.5g}, {found.rot2:.5g}, {found.rot3:.5g} rad",
        "beam": f"{1e10 * found.wavelength:.5f} angstrom, {geometry.HC / (1e10 * found.wavelength):.4f} keV",
        "orientation": f"{where} ({'settings' if settings.orientation else 'poni file'})" if where else "not stated",
    }


def _marks(marks: pixels.Marks) -> str:
    """Say which values mean that a pixel was not measured."""
    if marks.dummy is not None:
        return f"{marks.dummy} ± {marks.delta:g}, as pyFAI knows this detector: not measured"
    if marks.known:
        return "none but the largest number, as pyFAI knows this detector"
    return "the detector is not named: -1, -2 and the two largest numbers of integers mean not measured"


def _ignored(path: pathlib.Path, settings: XrdSettings) -> tuple[str, ...]:
    if settings.orientation and geometry.states_orientation(path):
        return ("the orientation of the poni file: settings.orientation decides",)
    return ()


def _picture(
    settings: XrdSettings, prepared: tuple[IntegrationTable, pixels.Marks], image: Array, mask: Array
) -> drawing.Picture:
    table, marks = prepared
    if image.shape != mask.shape:
        raise BadInput(f"the sample has shape {image.shape}, but the geometry is for {mask.shape}; use a frame of this detector")
    valid = frames.valid(image.dtype, settings, marks)
    pattern = table.mean(table.integrate(image, valid))[0]
    name, unit = AXES[settings.unit]
    drawn = drawing.curves(np.asarray(table.radial), {"intensity": pattern}, f"{len(pattern)} bins", f"{name} ({unit})")
    return drawing.beside(drawing.frame(image, valid.of(image) & ~mask), drawn)
