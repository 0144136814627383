"""SNIP: the background of a spectrum by clipping peaks, for many spectra at once.

Source: C. G. Ryan et al., Nucl. Instrum. Methods B 34 (1988) 396; the recurrence is that of PyMca (`SpecfitFuns.snip1d`):
y_i <- min(y_i, (y_(i-p) + y_(i+p)) / 2) for p = width .. 1, between anchors, each pass from the values of the pass before.
"""

import ctypes
import itertools

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native

Values = NDArray[np.float64]
Spectra = NDArray[np.float32]


def subtract(counts: Spectra, net: Spectra, width: int, cuts: NDArray[np.int64]) -> Values:
    """Write spectra (spectrum, channel) less their background into `net`; return the sum of the backgrounds (channel).

    `cuts` are the channels between which a spectrum is clipped on its own, from 0 to the number of channels.
    """
    total = np.zeros(counts.shape[1])
    library = native.library()
    if library is None:
        for low, high in itertools.pairwise(cuts):
            background = clipped(counts[:, low:high], width)
            total[low:high] = background.sum(axis=0, dtype=np.float64)
            np.subtract(counts[:, low:high], background, out=net[:, low:high])
        return total
    assert net.dtype == np.float32
    rows = native.rows(counts)
    spare, edges = np.empty(2 * counts.shape[1], dtype=np.float32), np.ascontiguousarray(cuts, dtype=np.int64)
    sizes = len(edges), *counts.shape, rows.strides[0] // rows.itemsize, width
    library.snip(ctypes.c_void_p(rows.ctypes.data), *native.pointers(net, total, spare, edges), *map(native.size, sizes))
    return total


def clipped(spectra: Spectra, width: int) -> Spectra:
    """Return the background of one segment of each spectrum, in NumPy."""
    now = np.ascontiguousarray(spectra.T)
    for distance in range(min(width, (len(now) - 1) // 2), 0, -1):
        mean = np.float32(0.5) * (now[: -2 * distance] + now[2 * distance :])
        now[distance:-distance] = np.minimum(now[distance:-distance], mean)
    return np.asarray(now.T)
