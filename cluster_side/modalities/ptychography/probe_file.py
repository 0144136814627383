"""Reads the probe of an earlier result: from a result file, a CXI file, or an array saved by NumPy."""

import pathlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

PLACES = ("entry/data/probe", "entry_1/image_1/probe/data", "entry_1/instrument_1/source_1/illumination")


def previous_probe(path: pathlib.Path) -> NDArray[np.complexfloating[Any, Any]]:
    """Return probe modes (modes, h, w); BadInput when the file has none."""
    found = _saved(path) if not h5py.is_hdf5(path) else _stored(path)
    if found.dtype.kind != "c" or found.ndim not in (2, 3) or not np.isfinite(found).all():
        raise BadInput(f"{path}: a probe is a complex array (modes, rows, columns), this is {found.dtype} {found.shape}")
    return found[None] if found.ndim == 2 else found


def _saved(path: pathlib.Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: no probe can be read from it ({error}); give a result file, or save one with numpy.save"
        ) from error


def _stored(path: pathlib.Path) -> NDArray[Any]:
    with h5py.File(path, "r") as file:
        for place in PLACES:
            if isinstance(found := file.get(place), h5py.Dataset):
                return np.asarray(found[()])
    raise BadInput(f"{path}: there is no probe in it; looked for {', '.join(PLACES)}")
