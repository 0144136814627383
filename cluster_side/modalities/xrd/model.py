"""The prepare step of XRD: pyFAI's sparse matrix as plain arrays in the order of the pixels, so that workers need no pyFAI.

A pixel p with value v gives c_pb x v to bin b. pyFAI's weighted mean is sum_p c v / sum_p c w, with w = solid angle x
polarization x flat: the denominator does not depend on the frame, so it is summed here, once.

    facts                        JSON in bytes: shape, wavelength, …
    weight      (pixel)          w
    dark        (pixel)          subtracted from each frame; empty if there is none
    background  (2, radial)      intensity and variance of calibration.background; empty if there is none
    pattern/*, cake/*            for each of the two kinds of bins:
      start     (pixel + 1)      the entries of pixel p are start[p] to start[p + 1]
      bins, parts  (entry)       b and c_pb
      sums      (4 or 5, bin)    over all pixels: c w, (c w)^2, c, c^2, and c x dark if there is one
      radial, azimuthal          centres of the bins
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from scipy.sparse import csr_array

from beamtide.errors import BadInput
from cluster_side.modalities.xrd import geometry, images
from cluster_side.modalities.xrd.integrate import Table, whole_frame
from cluster_side.modalities.xrd.spec import XrdSettings

Array = NDArray[Any]


def prepare(settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> dict[str, Array]:
    """Return the arrays of the fast engine; pyFAI's own engine needs none. BadInput says what is wrong with a file."""
    if settings.engine != "fast":
        return {}
    ai = geometry.integrator(settings, calibration)
    shape = tuple(ai.detector.shape)
    mask = mask_of(ai, calibration)
    weight = _weight(ai, settings, calibration)
    dark = (
        images.read(calibration["dark"], shape).astype(np.float32).ravel() if "dark" in calibration else np.empty(0, np.float32)
    )
    arrays: dict[str, Array] = {"weight": weight, "dark": dark}
    for name, wanted in (("pattern", True), ("cake", settings.cake is not None)):
        if wanted:
            arrays |= {f"{name}/{key}": array for key, array in _table(ai, settings, mask, name).items()}
            arrays[f"{name}/sums"] = sums(arrays, name)
    arrays["background"] = _background(arrays, calibration, shape)
    facts = {"shape": shape, "wavelength": 1e10 * ai.wavelength, "used": int((np.diff(arrays["pattern/start"]) > 0).sum())}
    return arrays | {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}


def mask_of(ai: AzimuthalIntegrator, calibration: Mapping[str, pathlib.Path]) -> Array:
    """Return which pixels are left out: those of the detector, of calibration.mask, and without flat field."""
    shape = tuple(ai.detector.shape)
    mask = np.zeros(shape, dtype=bool) if ai.detector.mask is None else ai.detector.mask.astype(bool)
    if "mask" in calibration:
        mask = mask | (images.read(calibration["mask"], shape) != 0)
    if "flat" in calibration:
        flat = images.read(calibration["flat"], shape)
        mask = mask | ~(np.isfinite(flat) & (flat > 0))
    if mask.all():
        raise BadInput("the mask leaves no pixel; pixels to leave out are those that are not 0")
    return np.asarray(mask)


def sums(arrays: Mapping[str, Array], name: str) -> Array:
    """Return what does not depend on the frame, summed over the pixels of each bin."""
    start, bins, parts = (arrays[f"{name}/{key}"] for key in ("start", "bins", "parts"))
    count, parts = int(arrays[f"{name}/count"][0]), parts.astype(np.float64)
    weight = np.repeat(arrays["weight"].astype(np.float64), np.diff(start))
    rows = [parts * weight, np.square(parts * weight), parts, np.square(parts)]
    if arrays["dark"].size:
        dark = np.repeat(arrays["dark"].astype(np.float64), np.diff(start))
        rows.append(parts * dark)
    return np.stack([np.bincount(bins, row, minlength=count) for row in rows])


def _weight(ai: AzimuthalIntegrator, settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> Array:
    shape = tuple(ai.detector.shape)
    weight = np.ones(shape, dtype=np.float32)
    if settings.solid_angle:
        weight *= ai.solidAngleArray(shape, absolute=False)
    if settings.polarization is not None:
        weight *= ai.polarization(shape, settings.polarization)
    if "flat" in calibration:
        weight *= images.read(calibration["flat"], shape).astype(np.float32)
    return np.ascontiguousarray(weight.ravel())


def _table(ai: AzimuthalIntegrator, settings: XrdSettings, mask: Array, name: str) -> dict[str, Array]:
    """Have pyFAI build its matrix, and turn it from the order of the bins to the order of the pixels."""
    limits = {"radial_range": settings.radial_range, "azimuth_range": settings.azimuth_range}
    image, method = np.zeros(mask.shape, dtype=np.float32), (settings.split, "csr", "cython")
    azimuthal = np.empty(0)
    if name == "pattern":
        found = ai.integrate1d_ng(image, settings.points, unit=settings.unit, mask=mask, method=method, **limits)
    else:
        found = ai.integrate2d_ng(image, settings.points, settings.cake, unit=settings.unit, mask=mask, method=method, **limits)
        azimuthal = np.asarray(found.azimuthal)
    engine = ai.engines[found.method].engine
    count = len(engine.indptr) - 1
    matrix = csr_array((engine.data, engine.indices, engine.indptr), shape=(count, mask.size)).tocsc()
    matrix.sort_indices()
    if not matrix.nnz:
        raise BadInput("radial_range and azimuth_range leave no pixel of the detector; check them and the unit")
    return {
        "start": matrix.indptr.astype(np.int32),
        "bins": matrix.indices.astype(np.int32),
        "parts": matrix.data.astype(np.float32),
        "count": np.array([count]),
        "radial": np.asarray(found.radial),
        "azimuthal": azimuthal,
    }


def _background(arrays: Mapping[str, Array], calibration: Mapping[str, pathlib.Path], shape: tuple[int, ...]) -> Array:
    if "background" not in calibration:
        return np.empty((0, 0))
    image = images.read(calibration["background"], (shape[0], shape[1]))
    table = Table(arrays, "pattern")
    intensity, sigma = table.mean(whole_frame(table, image.astype(np.float32)))
    return np.stack([intensity, np.square(sigma)])
