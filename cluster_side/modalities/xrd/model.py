"""The prepare step of XRD: pyFAI's sparse matrix as plain arrays in the order of the pixels, so that workers need no pyFAI.

A pixel p with value v adds c_pb x v to bin b. pyFAI's weighted mean is sum_p c v / sum_p c w, with w = solid angle x
polarization x flat: the denominator does not depend on the frame, so it is summed here, once.

    facts                        JSON in bytes: shape, wavelength, …
    weight      (pixel)          w
    dark        (pixel)          subtracted from each frame; empty if there is none
    background  (2, radial)      intensity and variance of calibration.background; empty if there is none
    pattern/*, cake/*            for each of the two kinds of bins:
      first     (pixel)          b of the first bin that pixel p is in; the number of bins if it is in none
      pairs     (pixel, 2)       c_pb for that bin and for the one after it
      more_pixels, more_first, more_pairs   the same for what else pixels give, a row for each two neighbouring bins
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
from scipy.sparse import csc_array, csr_array

from beamtide.errors import BadInput
from cluster_side.modalities.xrd import geometry, images
from cluster_side.modalities.xrd.integrate import IntegrationTable, whole_frame
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
            matrix, axes = _matrix(ai, settings, mask, name)
            table = in_pairs(matrix) | {"sums": sums(matrix, weight, dark)} | axes
            arrays |= {f"{name}/{key}": array for key, array in table.items()}
    arrays["background"] = _background(arrays, calibration, shape)
    facts = {"shape": shape, "wavelength": 1e10 * ai.wavelength, "used": int(np.count_nonzero(arrays["pattern/pairs"][:, 0]))}
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


def sums(matrix: csc_array, weight: Array, dark: Array) -> Array:
    """Return the sums over the pixels of each bin that do not depend on the frame, for a matrix (bin, pixel)."""
    parts, weight = matrix.astype(np.float64), weight.astype(np.float64)
    squares = parts.power(2)
    rows = [parts @ weight, squares @ np.square(weight), parts.sum(axis=1), squares.sum(axis=1)]
    if dark.size:
        rows.append(parts @ dark.astype(np.float64))
    return np.stack(rows)


def in_pairs(matrix: csc_array) -> dict[str, Array]:
    """Return a matrix (bin, pixel) as the rows of two neighbouring bins that `IntegrationTable` describes."""
    pixels, bins, parts = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr)), matrix.indices, matrix.data
    goes_on = np.append(False, (np.diff(bins) == 1) & (np.diff(pixels) == 0))
    since = np.arange(len(bins)) - np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(bins))))
    left = np.flatnonzero(since % 2 == 0)
    right = np.flatnonzero(since % 2 == 1)
    pairs = np.zeros((len(bins), 2), dtype=np.float32)
    pairs[left, 0], pairs[right - 1, 1] = parts[left], parts[right]
    main = np.diff(pixels[left], prepend=-1) > 0
    first = np.full(matrix.shape[1], matrix.shape[0], dtype=np.int32)
    both = np.zeros((matrix.shape[1], 2), dtype=np.float32)
    first[pixels[left[main]]], both[pixels[left[main]]] = bins[left[main]], pairs[left[main]]
    rest = left[~main]
    more = {"pixels": pixels[rest].astype(np.int32), "first": bins[rest].astype(np.int32), "pairs": pairs[rest]}
    return {"first": first, "pairs": both} | {f"more_{key}": array for key, array in more.items()}


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


def _matrix(ai: AzimuthalIntegrator, settings: XrdSettings, mask: Array, name: str) -> tuple[csc_array, dict[str, Array]]:
    """Let pyFAI build its matrix (bin, pixel); return it in the order of the pixels, and the centres of the bins."""
    limits = {"radial_range": settings.radial_range, "azimuth_range": settings.azimuth_range}
    image, method = np.zeros(mask.shape, dtype=np.float32), (settings.split, "csr", "cython")
    azimuthal = np.empty(0)
    if name == "pattern":
        found = ai.integrate1d_ng(image, settings.points, unit=settings.unit, mask=mask, method=method, **limits)
    else:
        found = ai.integrate2d_ng(image, settings.points, settings.cake, unit=settings.unit, mask=mask, method=method, **limits)
        azimuthal = np.asarray(found.azimuthal)
    engine = ai.engines[found.method].engine
    shape = len(engine.indptr) - 1, mask.size
    matrix = csr_array((engine.data.astype(np.float32), engine.indices, engine.indptr), shape=shape).tocsc()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    if not matrix.nnz:
        raise BadInput("radial_range and azimuth_range leave no pixel of the detector; check them and the unit")
    return matrix, {"radial": np.asarray(found.radial), "azimuthal": azimuthal}


def _background(arrays: Mapping[str, Array], calibration: Mapping[str, pathlib.Path], shape: tuple[int, ...]) -> Array:
    if "background" not in calibration:
        return np.empty((0, 0))
    image = images.read(calibration["background"], (shape[0], shape[1]))
    table = IntegrationTable(arrays, "pattern")
    intensity, sigma = table.mean(whole_frame(table, image.astype(np.float32)))
    return np.stack([intensity, np.square(sigma)])
