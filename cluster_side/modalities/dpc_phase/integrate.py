"""Integrates gradients on a raster. Pure.

Theory: R. T. Frankot, R. Chellappa, IEEE Trans. Pattern Anal. 10 (1988) 439: the surface whose gradients are nearest in the
least squares to those measured has the Fourier transform -i (wx Gx + wy Gy) / (wx^2 + wy^2). The transform is periodic and a map
is not: it is mirrored to four times its size, so that nothing wraps around.
"""

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Values = NDArray[np.float64]


def frankot_chellappa(along_columns: Values, along_lines: Values) -> Values:
    """Return the map (lines, columns) whose differences per column and per line are given; its mean is 0.

    BadInput when a gradient is not finite: fill holes first.
    """
    if not (np.isfinite(along_columns).all() and np.isfinite(along_lines).all()):
        raise BadInput("gradients must be known everywhere before they are integrated")
    lines, columns = along_columns.shape
    gx, gy = mirrored(along_columns, odd_axis=1), mirrored(along_lines, odd_axis=0)
    wx, wy = (2 * np.pi * np.fft.fftfreq(2 * size) for size in (columns, lines))
    wx[columns] = wy[lines] = 0.0  # the highest frequency of an even length has no sign, so it has no derivative
    square = wx[None, :] ** 2 + wy[:, None] ** 2
    spectrum = -1j * (wx[None, :] * np.fft.fft2(gx) + wy[:, None] * np.fft.fft2(gy))
    found = np.fft.ifft2(np.divide(spectrum, square, out=np.zeros_like(spectrum), where=square > 0)).real
    cut = found[:lines, :columns]
    return np.asarray(cut - cut.mean())


def mirrored(values: Values, odd_axis: int) -> Values:
    """Return a map continued by its mirror images; a gradient changes its sign when it is mirrored along its own axis."""
    for axis in (0, 1):
        image = np.flip(values, axis)
        values = np.concatenate([values, -image if axis == odd_axis else image], axis)
    return values


def without_plane(values: Values, weight: NDArray[np.bool_]) -> Values:
    """Return a map minus the plane that fits it best (least squares) where `weight` holds; as it is if that is nowhere."""
    line, column = np.indices(values.shape)
    terms = np.stack([np.ones(values.size), column.ravel(), line.ravel()], axis=1).astype(float)
    known = weight.ravel()
    if not known.any():
        return values
    plane, *_ = np.linalg.lstsq(terms[known], values.ravel()[known], rcond=None)
    return np.asarray(values - (terms @ plane).reshape(values.shape))
