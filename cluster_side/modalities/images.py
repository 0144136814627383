"""Images that come as calibration files: masks, darks, flats, backgrounds, the empty beam; for every modality the same.

A `.npy` file, HDF5 with a dataset named like the role ("mask") or with a single image, EDF, TIFF, CBF, or what else fabio reads;
also compressed with gzip or bzip2. Calibration files travel under their role, without their suffix, so the kind is told from the
first bytes. Nothing is unpickled, and nothing but the file itself is opened: HDF5 that leads to other files is refused.
"""

import bz2
import contextlib
import gzip
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats import confinement
from cluster_side.modalities import pixels

EXPECTED = "expected one image (y, x) as .npy, HDF5, EDF or TIFF"
LARGEST = 1 << 30
"""Bytes that a compressed file may become."""
COMPRESSED: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CalibrationImage:
    """An image, and which of its pixels are known; the others are 0."""

    values: NDArray[np.float32]
    known: NDArray[np.bool_]


def mask(calibration: Mapping[str, pathlib.Path], shape: Shape | None = None) -> NDArray[np.bool_] | None:
    """Return which pixels (y, x) calibration.mask leaves out: those that are not 0; None if there is no such file."""
    return None if "mask" not in calibration else read(calibration["mask"], "mask", shape) != 0


def measured(
    calibration: Mapping[str, pathlib.Path], role: str, shape: Shape | None = None, marks: pixels.Marks = pixels.ANY
) -> CalibrationImage | None:
    """Return an image that was measured (dark, flat) and which pixels of it are measurements; None if there is no such file."""
    if role not in calibration:
        return None
    return known_part(read(calibration[role], role, shape), marks)


def known_part(image: NDArray[Any], marks: pixels.Marks) -> CalibrationImage:
    """Return an image with which of its pixels are measurements of a detector with these marks."""
    known = pixels.valid_values(image.dtype, marks).of(image)
    return CalibrationImage(np.where(known, image, 0).astype(np.float32), known)


def read(path: pathlib.Path, role: str, shape: Shape | None = None) -> NDArray[Any]:
    """Return the image (y, x) in a file, in its own type of number; BadInput if it is none, or not of this shape."""
    where = f"calibration.{role}: {path}"
    try:
        image = np.asarray(_read(path, role))
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    except (OSError, KeyError, ValueError, EOFError, TypeError, IndexError, StopIteration, zlib.error) as error:
        raise BadInput(f"{where} is not an image ({' '.join(str(error).split())}); {EXPECTED}") from error
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2 or image.dtype.kind not in "biuf" or not image.size:
        raise BadInput(f"{where} is not an image: shape {image.shape}, {image.dtype}; {EXPECTED}")
    if shape is not None:
        check_shape(image, role, shape)
    return image


def check_shape(image: NDArray[Any], role: str, shape: Shape) -> None:
    """Raise BadInput when a calibration image is not of the size of the frames."""
    if image.shape != shape:
        (rows, columns), (height, width) = image.shape, shape
        raise BadInput(
            f"calibration.{role} has {rows} x {columns} pixels (rows x columns), but the frames have {height} x {width}; "
            f"use the {role} of this detector{', not one that is turned' if image.shape == shape[::-1] else ''}"
        )


def _read(path: pathlib.Path, role: str) -> NDArray[Any]:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opener in COMPRESSED.items():
        if start.startswith(magic):
            return _decompressed(path, opener, role)
    if start.startswith(b"\x93NUMPY"):
        return np.asarray(np.load(path, allow_pickle=False))
    if start.startswith(b"\x89HDF"):
        return _from_hdf5(path, role)
    import fabio  # only where a file is neither

    try:
        with fabio.open(str(path)) as image:
            return np.array(image.data)
    except Exception as error:  # fabio raises what its readers raise
        raise ValueError(f"fabio cannot read it: {type(error).__name__}") from error


def _decompressed(path: pathlib.Path, opener: Callable[..., Any], role: str) -> NDArray[Any]:
    with opener(path, "rb") as packed, tempfile.TemporaryDirectory() as folder:
        content = packed.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"it becomes more than {LARGEST >> 20} MiB when it is decompressed")
        if any(content.startswith(magic) for magic in COMPRESSED):
            raise ValueError("it is compressed twice")
        plain = pathlib.Path(folder) / role
        plain.write_bytes(content)
        return _read(plain, role)


def _from_hdf5(path: pathlib.Path, role: str) -> NDArray[Any]:
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  registers the compression filters of detectors

    found: list[h5py.Dataset] = []
    with h5py.File(path, "r") as file:
        if targets := confinement.leads(file, confinement.MAX_OBJECTS)[0]:
            raise BadInput(f"{targets[0][0]} leads to {targets[0][1]}, and only the file itself travels; copy the image into it")
        if isinstance(own := file.get(role), h5py.Dataset):
            return np.asarray(own[()])
        file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) and item.ndim >= 2 else None)
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} image datasets, not one, and none is called {role}")
        return np.asarray(found[0][()])
