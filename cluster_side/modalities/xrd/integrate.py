"""Integration of a frame against a prepared table: sums per bin, and the weighted mean with its uncertainty.

The convention is pyFAI's (`integrate1d_ng`, error model "poisson"; J. Kieffer et al., J. Appl. Cryst. 48 (2015) 510): with
parts c, weights w, values v and dark d, intensity = sum c (v - d) / sum c w, variance of a pixel = max(1, v) (the dark
counts as exactly known), and the standard uncertainty of the mean is sqrt(sum c^2 variance) / sum c w. Pixels that are not valid
in a frame are left out of both sums.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import native, pixels
from cluster_side.modalities.pixels import Valid

Array = NDArray[Any]
Values = NDArray[np.float64]
COMPILED = {"u1", "u2", "u4", "i2", "i4", "f4"}
"""Kinds of pixels for which there is a compiled loop; others become float32, as in pyFAI."""
FINITE = Valid(-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max))
"""What is a measurement where all else was made NaN before."""


@dataclass(frozen=True, slots=True)
class FrameSums:
    """The sums of one frame in each bin."""

    signal: Values
    variance: Values
    norm: Values
    counts: float
    """Of all valid pixels that are in a bin."""
    lost: int
    """Pixels in a bin that were not valid."""


class _CIntegrationTable(ctypes.Structure):
    """`struct table` of xrd.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "more_pixels", "more_first", "pairs", "more_pairs", "weight", "dark")),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_double) for name in ("low", "high")),
        *((name, ctypes.c_long) for name in ("ranges", "pixels", "more", "count")),
    )


class IntegrationTable:
    """The prepared arrays of one kind of bins.

    Pixel p gives the part `pairs[p, 0]` of its value to bin `first[p]`, and `pairs[p, 1]` to the bin after it: this is enough for
    nearly every pixel, without an inner loop. `more_pixels`, `more_first`, `more_pairs` hold further parts of pixels. For a pixel
    that is in no bin, the first bin is the number of bins.
    """

    def __init__(self, prepared: Mapping[str, Array], name: str) -> None:
        self.first, self.pairs = prepared[f"{name}/first"], prepared[f"{name}/pairs"]
        self.more_pixels, self.more_first, self.more_pairs = (
            prepared[f"{name}/more_{key}"] for key in ("pixels", "first", "pairs")
        )
        self.sums: Values = prepared[f"{name}/sums"]
        self.weight, self.dark = prepared["weight"], prepared["dark"]
        self.radial, self.azimuthal = prepared[f"{name}/radial"], prepared[f"{name}/azimuthal"]

    def entries(self) -> tuple[Array, Array, Values]:
        """Return pixel, bin and part of everything that a pixel gives to a bin."""
        which = np.append(np.arange(len(self.first)), self.more_pixels)
        first, pairs = np.append(self.first, self.more_first), np.concatenate([self.pairs, self.more_pairs])
        row, side = np.nonzero(pairs)
        return which[row], first[row] + side, pairs[row, side].astype(np.float64)

    @property
    def norm(self) -> Values:
        """The sum of parts x weights of each bin, in the shape of the pattern."""
        return self.shaped(self.sums[0])

    def shaped(self, values: Values) -> Values:
        """Return values per bin in the shape of the pattern: (radial), or (azimuthal, radial)."""
        return values.reshape(len(self.radial), len(self.azimuthal)).T if self.azimuthal.size else values

    def integrate(self, frame: Array, valid: Valid) -> FrameSums:
        """Return the sums of one frame (rows, columns) of any type of number and byte order."""
        flat = frame.reshape(-1)
        if flat.dtype.str[1:] not in COMPILED:
            flat, valid = np.where(valid.of(flat), flat, np.nan).astype(np.float32), FINITE
        flat = pixels.native(flat)
        both, lost = np.zeros((2, self.sums.shape[1] + 2, 2)), np.zeros(self.sums.shape)
        add = _plain if native.library() is None else _compiled
        missing, total = add(self, (flat, valid), (both, lost))
        signal, variance = both.sum(axis=0)[:-2].T.copy()
        rest = self.sums - lost if missing else self.sums
        variance += rest[3]
        if self.dark.size:
            signal -= rest[4]
        return FrameSums(signal, variance, rest[0], total, missing)

    def mean(self, found: FrameSums) -> tuple[Values, Values]:
        """Return intensity and its standard uncertainty in each bin; NaN in bins without a valid pixel."""
        some = found.norm > 1e-9 * max(float(self.sums[0].max()), np.finfo(float).tiny)
        blank = np.full(found.norm.shape, np.nan)
        intensity = np.divide(found.signal, found.norm, out=blank.copy(), where=some)
        sigma = np.divide(np.sqrt(np.maximum(found.variance, 0.0)), found.norm, out=blank, where=some)
        return self.shaped(intensity), self.shaped(sigma)


def check_shape(frame: Array, shape: tuple[int, int], name: str) -> None:
    """Raise BadInput when a frame is not of the detector of the geometry."""
    if frame.shape != shape:
        raise BadInput(
            f"{name!r} has frames of shape {frame.shape}, but poni file and mask are for {shape}; use those of this detector"
        )


def _compiled(table: IntegrationTable, given: tuple[Array, Valid], sums: tuple[Values, Values]) -> tuple[int, float]:
    (flat, valid), total = given, ctypes.c_double()
    library = native.library()
    assert library is not None
    dark = native.pointer(table.dark) if table.dark.size else None
    arrays = table.first, table.more_pixels, table.more_first, table.pairs, table.more_pairs, table.weight
    sizes = flat.size, len(table.more_pixels), len(table.sums[0])
    out = np.array(valid.out, np.float64).reshape(-1, 2)
    ranges = native.pointer(out), valid.low, valid.high, len(out)
    given_table = _CIntegrationTable(*map(native.pointer, arrays), dark, *ranges, *sizes)
    scatter = getattr(library, f"scatter_{flat.dtype.str[1:]}")
    scatter.restype = ctypes.c_long
    frame, results = native.pointer(flat), map(native.pointer, sums)
    return int(scatter(frame, ctypes.byref(given_table), *results, ctypes.byref(total))), total.value


def _plain(table: IntegrationTable, given: tuple[Array, Valid], sums: tuple[Values, Values]) -> tuple[int, float]:
    """Do the same in NumPy."""
    (flat, valid), (both, lost) = given, sums
    where, bins, parts = table.entries()
    good = valid.of(flat)
    values = np.where(good, flat, 0).astype(np.float64)
    both[0, :, 0] += np.bincount(bins, parts * values[where], minlength=both.shape[1])
    both[0, :, 1] += np.bincount(bins, np.square(parts) * np.maximum(values[where] - 1.0, 0.0), minlength=both.shape[1])
    bad = ~good[where]
    if bad.any():
        parts, bins, weight = parts[bad], bins[bad], table.weight[where[bad]].astype(np.float64)
        rows = [parts * weight, np.square(parts * weight), parts, np.square(parts)]
        if table.dark.size:
            rows.append(parts * table.dark[where[bad]])
        lost += np.stack([np.bincount(bins, row, minlength=lost.shape[1]) for row in rows])
    used = table.first < lost.shape[1]
    return int((~good & used).sum()), float(values[used].sum())
