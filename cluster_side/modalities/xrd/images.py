"""Images that come as calibration files: masks, darks, flats, backgrounds; as .npy, HDF5, EDF, TIFF or what else fabio reads.

Calibration files are named after their role, without a suffix, so the kind follows from the first bytes.
"""

import pathlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

EXPECTED = "expected a two-dimensional image as .npy, HDF5 (one image dataset), EDF or TIFF"


def read(path: pathlib.Path, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Return an image; BadInput if the file is not an image, or not of this shape."""
    try:
        image = np.asarray(_read(path))
    except (OSError, KeyError, ValueError, EOFError, TypeError, IndexError) as error:
        raise BadInput(f"{path} is not an image ({' '.join(str(error).split())}); {EXPECTED}") from error
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2 or image.dtype.kind not in "biuf":
        raise BadInput(f"{path} is not an image: shape {image.shape}, {image.dtype}; {EXPECTED}")
    if shape is not None and image.shape != shape:
        raise BadInput(f"{path} has shape {image.shape}, but the frames have {shape}; it belongs to another detector")
    return image


def _read(path: pathlib.Path) -> NDArray[Any]:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return np.asarray(np.load(path, allow_pickle=False))
    if start.startswith(b"\x89HDF"):
        return _from_hdf5(path)
    import fabio

    try:
        with fabio.open(str(path)) as image:
            return np.array(image.data)
    except Exception as error:  # fabio raises what its readers raise
        raise ValueError(f"fabio cannot read it: {type(error).__name__}") from error


def _from_hdf5(path: pathlib.Path) -> NDArray[Any]:
    import hdf5plugin  # noqa: F401  registers the compression filters of detectors

    found: list[h5py.Dataset] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) and item.ndim >= 2 else None)
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} image datasets, not one")
        return np.asarray(found[0][()])
