"""The prepare step of XRD: pyFAI's sparse matrix as plain arrays in the order of the pixels, so that workers need no pyFAI.

A pixel p with value v adds c_pb x v to bin b. pyFAI's weighted mean is sum_p c v / sum_p c w, with w = solid angle x
polarization x flat: the denominator does not depend on the frame, so it is summed here, once.

    facts                        JSON in bytes: shape, wavelength, marks of the detector, pixels that dark or flat do not know, …
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
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.detectors import Detector, NexusDetector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from scipy.sparse import csc_array, csr_array

from beamtide.errors import BadInput
from cluster_side.modalities import images, pixels
from cluster_side.modalities.xrd import geometry
from cluster_side.modalities.xrd.integrate import IntegrationTable
from cluster_side.modalities.xrd.spec import XrdSettings

Array = NDArray[Any]


def prepare(settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> dict[str, Array]:
    """Return the arrays of the fast engine; pyFAI's own engine needs none. BadInput says what is wrong with a file."""
    if settings.engine != "fast":
        return {}
    ai = geometry.integrator(settings, calibration)
    shape = tuple(ai.detector.shape)
    mask, field = mask_of(ai, calibration), known_field(ai, calibration)
    weight = _weight(ai, settings, field)
    dark = np.empty(0, np.float32) if field.dark is None else field.dark.ravel()
    arrays: dict[str, Array] = {"weight": weight, "dark": dark}
    lost = dict[str, int]()
    for name, wanted in (("pattern", True), ("cake", settings.cake is not None)):
        if wanted:
            matrix, axes = _matrix(ai, settings, mask, name)
            lost[name] = int(np.count_nonzero(np.diff(matrix.indptr)[~field.known.ravel()]))
            matrix = _without(matrix, field.known)
            table = in_pairs(matrix) | {"sums": sums(matrix, weight, dark)} | axes
            arrays |= {f"{name}/{key}": array for key, array in table.items()}
    marks = marks_of(ai)
    arrays["background"] = _background(arrays, calibration, shape, marks)
    facts = {"shape": shape, "wavelength": 1e10 * ai.wavelength, "used": int(np.count_nonzero(arrays["pattern/pairs"][:, 0]))}
    facts |= {"marks": astuple(marks), "unknown": lost["pattern"]}
    return arrays | {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)}


@dataclass(frozen=True, slots=True)
class Field:
    """What is known of each pixel (y, x) before a frame is measured: dark and flat, where there are any, and where they hold.

    Pixels that are not known are left out of each frame, like those that were not measured in it. They are no part of the mask,
    because a mask moves the bins, and pyFAI's do not move either.
    """

    dark: NDArray[np.float32] | None
    flat: NDArray[np.float32] | None
    known: NDArray[np.bool_]


def known_field(ai: AzimuthalIntegrator, calibration: Mapping[str, pathlib.Path]) -> Field:
    """Return dark and flat of a detector; a pixel is known where the dark is a measurement, and the flat is one above 0."""
    shape, marks = tuple(ai.detector.shape), marks_of(ai)
    dark, flat = (images.measured(calibration, role, shape, marks) for role in ("dark", "flat"))
    dark = dark or _of_detector(ai.detector.darkcurrent, marks)
    flat = flat or _of_detector(ai.detector.flatfield, marks)
    known = np.ones(shape, dtype=bool) if dark is None else dark.known
    if flat is not None:
        known = known & flat.known & (flat.values > 0)
    if not known.any():
        raise BadInput("calibration: dark and flat leave no pixel; both must be measured, and the flat above 0")
    return Field(None if dark is None else dark.values, None if flat is None else np.where(known, flat.values, 1), known)


def _of_detector(image: Array | None, marks: pixels.Marks) -> images.CalibrationImage | None:
    """Return an image that the detector's own file holds, as pyFAI takes it where no other is given."""
    return None if image is None else images.known_part(np.asarray(image), marks)


def marks_of(ai: AzimuthalIntegrator) -> pixels.Marks:
    """Return what the detector writes where nothing was measured, as pyFAI knows it."""
    detector = ai.detector
    known = detector.dummy is not None or type(detector) not in (Detector, NexusDetector)
    return pixels.Marks(None if detector.dummy is None else int(detector.dummy), float(detector.delta_dummy or 0.0), known)


def mask_of(ai: AzimuthalIntegrator, calibration: Mapping[str, pathlib.Path]) -> Array:
    """Return which pixels are left out: those of the detector, and of calibration.mask."""
    shape = tuple(ai.detector.shape)
    mask = np.zeros(shape, dtype=bool) if ai.detector.mask is None else ai.detector.mask.astype(bool)
    given = images.mask(calibration, shape)
    mask = mask if given is None else mask | given
    if mask.all():
        raise BadInput("calibration.mask leaves no pixel; pixels to leave out are those that are not 0")
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


def _without(matrix: csc_array, known: Array) -> csc_array:
    """Return a matrix (bin, pixel) without the pixels that are not known."""
    if known.all():
        return matrix
    matrix.data[~known.ravel()[np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))]] = 0
    matrix.eliminate_zeros()
    return matrix


def _weight(ai: AzimuthalIntegrator, settings: XrdSettings, field: Field) -> Array:
    shape = tuple(ai.detector.shape)
    weight = np.ones(shape, dtype=np.float32)
    if settings.solid_angle:
        weight *= ai.solidAngleArray(shape, absolute=False)
    if settings.polarization is not None:
        weight *= ai.polarization(shape, settings.polarization)
    if field.flat is not None:
        weight *= field.flat
    return np.ascontiguousarray(weight.ravel())


def _matrix(ai: AzimuthalIntegrator, settings: XrdSettings, mask: Array, name: str) -> tuple[csc_array, dict[str, Array]]:
    """Have pyFAI build its matrix (bin, pixel); return it in the order of the pixels, and the centres of the bins."""
    sector = geometry.sector(settings.azimuth_range)
    limits, ai = {"radial_range": settings.radial_range, "azimuth_range": sector.limits}, sector.turned(ai)
    image, method = np.zeros(mask.shape, dtype=np.float32), (settings.split, "csr", "cython")
    azimuthal = np.empty(0)
    if name == "pattern":
        found = ai.integrate1d_ng(image, settings.points, unit=settings.unit, mask=mask, method=method, **limits)
    else:
        found = ai.integrate2d_ng(image, settings.points, settings.cake, unit=settings.unit, mask=mask, method=method, **limits)
        azimuthal = np.asarray(found.azimuthal) + sector.offset
    engine = ai.engines[found.method].engine
    shape = len(engine.indptr) - 1, mask.size
    matrix = csr_array((engine.data.astype(np.float32), engine.indices, engine.indptr), shape=shape).tocsc()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    if not matrix.nnz:
        raise BadInput("radial_range and azimuth_range leave no pixel of the detector; check them and the unit")
    return matrix, {"radial": np.asarray(found.radial), "azimuthal": azimuthal}


def _background(
    arrays: Mapping[str, Array], calibration: Mapping[str, pathlib.Path], shape: tuple[int, ...], marks: pixels.Marks
) -> Array:
    if "background" not in calibration:
        return np.empty((0, 0))
    image = images.read(calibration["background"], "background", (shape[0], shape[1]))
    table = IntegrationTable(arrays, "pattern")
    intensity, sigma = table.mean(table.integrate(image, pixels.valid_values(image.dtype, marks)))
    return np.stack([intensity, np.square(sigma)])
