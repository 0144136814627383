"""The reference spectrum for calibration and weights: a scan's sum spectrum (result file), a .npy array, or an .spe text.

Calibration files are named after their role, without a suffix, so the kind follows from the first bytes.
"""

import pathlib

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

INSIDE = "entry/data/spectrum/sum"
"""Where a result file of ours holds it."""
EXPECTED = "expected a result file of the xrf pipeline, a one-dimensional .npy array, or an .spe text"


def read(path: pathlib.Path) -> NDArray[np.float64]:
    """Return counts per channel; BadInput says why a file is not a spectrum."""
    try:
        values = np.asarray(_read(path), dtype=np.float64)
    except (OSError, KeyError, ValueError, EOFError, TypeError) as error:
        raise BadInput(f"{path} is not a spectrum ({' '.join(str(error).split())}); {EXPECTED}") from error
    if values.ndim != 1 or not values.size or not np.isfinite(values).all() or values.min() < 0:
        raise BadInput(f"{path} is not a spectrum: shape {values.shape}, or values that are no counts; {EXPECTED}")
    return values


def _read(path: pathlib.Path) -> NDArray[np.generic]:
    start = path.read_bytes()[:8]
    if start.startswith(b"\x89HDF"):
        with h5py.File(path, "r") as file:
            return np.asarray(file[INSIDE][()])
    if start.startswith(b"\x93NUMPY"):
        return np.asarray(np.load(path, allow_pickle=False))
    return _spe(path.read_text(encoding="utf-8"))


def _spe(text: str) -> NDArray[np.float64]:
    """Return the counts that follow $DATA: and its line "first last"."""
    _, found, after = text.partition("$DATA:")
    if not found:
        raise ValueError("there is no $DATA:")
    limits, _, rest = after.lstrip().partition("\n")
    first, last = (int(word) for word in limits.split())
    return np.array(rest.partition("$")[0].split()[: last - first + 1], dtype=np.float64)
