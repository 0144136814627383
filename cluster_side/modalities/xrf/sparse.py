"""Products with templates: a line group is zero in most channels, so only blocks of channels where it is not are multiplied.

On the map of the benchmark that is a fifth of the dense product. Without a compiler the dense products give the same numbers.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native

Array = NDArray[Any]
Values = NDArray[np.float64]
BLOCK_BYTES = 64
"""What xrf.c multiplies at once: 8 channels in double precision, 16 in single."""
SPARE = 16
"""Doubles that xrf.c needs for each parameter."""


def trimmed(templates: Values, small: float) -> Values:
    """Return templates (channel, parameter) without what is below that part of their largest value."""
    return np.where(np.abs(templates) > small * np.abs(templates).max(axis=0), templates, 0.0)


class Table:
    """A table (channel, parameter) that is zero in most channels, ready to be multiplied in its own precision."""

    def __init__(self, dense: Array) -> None:
        self._dense, (channels, self._count) = dense, dense.shape
        width = BLOCK_BYTES // dense.itemsize
        filled = np.zeros((-(-channels // width) * width, self._count), dense.dtype)
        filled[:channels] = dense
        blocks = filled.reshape(-1, width, self._count).transpose(0, 2, 1)
        used = blocks.any(axis=2)
        block, which = np.nonzero(used)
        start = np.searchsorted(block, np.arange(len(blocks) + 1))
        self._kept: list[Array] = [np.ascontiguousarray(blocks[used]), start.astype(np.int64), which.astype(np.int64)]
        self._kept.append(np.empty(SPARE * self._count))
        self._pointers = [native.pointer(array) for array in self._kept]

    def project(self, spectra: Values) -> Values:
        """Return spectra (spectrum, channel) times the table: (spectrum, parameter)."""
        library = native.library()
        if library is None:
            return np.asarray(spectra @ self._dense)
        rows, size = _rows(spectra), self._count
        right = np.empty((len(rows), size))
        sizes = *rows.shape, rows.strides[0] // rows.itemsize, size
        into = *self._pointers, native.pointer(right)
        getattr(library, f"project_{self._dense.dtype.str[1:]}")(_start(rows), *into, *map(native.size, sizes))
        return right

    def chi_square(self, net: Values, variance: Values, areas: Values) -> Values:
        """Return the squared residuals of each spectrum in units of their variance, which counts as at least 1.

        The model is `areas` (spectrum, parameter) times this table, which is in single precision.
        """
        library = native.library()
        if library is None:
            left = net - areas.astype(np.float32) @ self._dense.T
            return np.asarray((np.square(left) / np.maximum(variance, 1.0)).sum(axis=1))
        both, result = (_rows(net), _rows(variance)), np.empty(len(net))
        given = *map(_start, both), native.pointer(areas), *self._pointers, native.pointer(result)
        strides = (rows.strides[0] // rows.itemsize for rows in both)
        library.chi_square(*given, *map(native.size, (*net.shape, *strides, self._count)))
        return result


def _rows(spectra: Values) -> Values:
    """Return spectra whose channels lie side by side; the spectra themselves may lie further apart."""
    return spectra if spectra.strides[1] == spectra.itemsize else np.ascontiguousarray(spectra)


def _start(rows: Values) -> ctypes.c_void_p:
    return ctypes.c_void_p(rows.ctypes.data)
