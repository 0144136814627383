"""SNIP: the background of a spectrum by clipping peaks, for many spectra at once.

Source: C. G. Ryan et al., Nucl. Instrum. Methods B 34 (1988) 396; the recurrence is that of PyMca (`SpecfitFuns.snip1d`):
y_i <- min(y_i, (y_(i-p) + y_(i+p)) / 2) for p = width .. 1, between anchors, each pass from the values of the pass before.
"""

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native

Values = NDArray[np.float64]


def background(spectra: Values, width: int, cuts: NDArray[np.int64]) -> Values:
    """Return the background (spectrum, channel) in the unit of the spectra.

    `cuts` are the channels between which the spectrum is clipped on its own, from 0 to the number of channels.
    """
    result = np.array(spectra, dtype=np.float64, order="C")
    library = native.library()
    if library is None:
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            result[:, low:high] = clipped(result[:, low:high], width)
        return result
    spare, edges = np.empty(result.shape[1]), np.ascontiguousarray(cuts, dtype=np.int64)
    library.snip(
        *map(native.pointer, (result, spare, edges)), *map(native.size, (len(edges), len(result), result.shape[1], width))
    )
    return result


def clipped(spectra: Values, width: int) -> Values:
    """Return the same for one segment, in NumPy."""
    now = np.ascontiguousarray(spectra.T)
    for distance in range(min(width, (len(now) - 1) // 2), 0, -1):
        mean = 0.5 * (now[: -2 * distance] + now[2 * distance :])
        now[distance:-distance] = np.minimum(now[distance:-distance], mean)
    return np.asarray(now.T)
