"""Calibration files of the size of a frame: mask (1 = leave out), dark, and the reference frame of the empty beam.

A `.npy` file, or HDF5 with one dataset named like the file's role ("mask"), or with a single dataset. Nothing is unpickled.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput


def judge(calibration: Mapping[str, pathlib.Path]) -> None:
    """Raise BadInput for files that are no frames, or not all of the same size."""
    shapes = {name: read(path, name).shape for name, path in calibration.items()}
    if len(set(shapes.values())) > 1:
        raise BadInput(f"calibration: all frames must have the size of the detector, but there are {shapes}")


def read(path: pathlib.Path, role: str) -> NDArray[Any]:
    """Return the frame (y, x) in a file; BadInput says what is wrong with it."""
    try:
        with path.open("rb") as file:
            numpy_file = file.read(6) == b"\x93NUMPY"
        frame = np.load(path, allow_pickle=False) if numpy_file else _from_hdf5(path, role)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"calibration.{role}: {path} is neither a .npy file of numbers nor HDF5 with {role!r} ({error})"
        ) from error
    if frame.ndim != 2 or frame.dtype.kind not in "biuf":
        raise BadInput(f"calibration.{role}: {path} holds {frame.dtype} of shape {frame.shape}; expected one frame (y, x)")
    return np.asarray(frame)


def _from_hdf5(path: pathlib.Path, role: str) -> NDArray[Any]:
    import h5py  # only where a file is HDF5

    with h5py.File(path, "r") as file:
        name = role if role in file else next(iter(file))
        return np.asarray(file[name][()])
