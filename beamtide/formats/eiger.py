"""Image files of Eiger-like detectors: HDF5, one compressed chunk per frame, read frame by frame.

    options: {frames: /entry/data/data}      array name -> dataset path, as for `hdf5`; default as shown

Frames are `StoredFrames`: each is decompressed when it is asked for.
A chunk with bitshuffle-LZ4 (HDF5 filter 32008) is read as it is and decompressed here, which takes half the time of HDF5's filter
pipeline; other compressions go through HDF5, with the filters of hdf5plugin.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent
from beamtide.formats.hdf5 import datasets, opened
from beamtide.formats.lazy import LazyFrames

DEFAULT = {"frames": "/entry/data/data"}
BITSHUFFLE, LZ4 = 32008, 2
HEADER = 12
"""A chunk begins with its size (8 bytes) and the size of its blocks (4 bytes), big-endian."""


class StoredFrames(LazyFrames):
    """Frames `first` to `last` of a dataset."""

    def __init__(self, path: pathlib.Path, where: str, rows: tuple[int, int]) -> None:
        self._path, self._where, self._first = path, where, rows[0]
        with opened(path) as file:
            found = datasets(file, {"frames": where})["frames"]
            super().__init__((rows[1] - rows[0], *found.shape[1:]), found.dtype)
            self._plan = _plan(found)

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames; the file is opened once for all of them."""
        with opened(self._path) as file:
            found = file[self._where]
            for row in rows:
                yield self._frame(found, self._first + row)

    def _frame(self, dataset: h5py.Dataset, row: int) -> NDArray[Any]:
        if self._plan is None:
            try:
                return np.asarray(dataset[row])
            except OSError as error:
                raise self._damaged(row, error) from error
        try:
            _, chunk = dataset.id.read_direct_chunk((row, *(0 for _ in self.shape[1:])))
            return self._plan.decompressed(chunk, self.shape[1:], self.dtype)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._damaged(row, error) from error

    def _damaged(self, row: int, error: Exception) -> BadInput:
        reason = " ".join(str(error).split())
        return BadInput(f"{self._path}: frame {row} of {self._where} cannot be decompressed ({reason}); the file is damaged")


@dataclass(frozen=True, slots=True)
class Bitshuffled:
    """Chunks of bitshuffle-LZ4."""

    def decompressed(self, chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the frame of a chunk; ValueError if its header is wrong."""
        import bitshuffle

        size, block = int.from_bytes(chunk[:8], "big"), int.from_bytes(chunk[8:HEADER], "big") // dtype.itemsize
        if size != int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(f"its chunk holds {size} bytes")
        packed = np.frombuffer(chunk, dtype=np.uint8, offset=HEADER)
        return np.asarray(bitshuffle.decompress_lz4(packed, shape, dtype, block))


@dataclass(frozen=True, slots=True)
class EigerFormat:
    """Frames in the chunks of HDF5 datasets."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds."""
        with opened(path) as file:
            return Extent(min(len(found) for found in datasets(file, options or DEFAULT).values()))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the frames `first <= frame < last`, not yet read."""
        there = self.probe(path, options).frames
        if not 0 <= first <= last <= there:
            raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {there}; was it written again?")
        return {name: StoredFrames(path, where, (first, last)) for name, where in (options or DEFAULT).items()}

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return nothing: these files do not know the scan."""
        return None


def _plan(dataset: h5py.Dataset) -> Bitshuffled | None:
    """Return how to decompress chunks, or None to leave it to HDF5; BadInput for a filter that nobody here knows."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    whole = dataset.chunks == (1, *dataset.shape[1:])
    if len(filters) == 1 and filters[0][0] == BITSHUFFLE and filters[0][2][4:5] == (LZ4,) and whole and _has_bitshuffle():
        return Bitshuffled()
    unknown = [number for number, *_ in filters if not h5py.h5z.filter_avail(number)]
    if unknown:
        _register_filters(dataset)
        unknown = [number for number in unknown if not h5py.h5z.filter_avail(number)]
    if unknown:
        raise BadInput(
            f"{dataset.file.filename}: {dataset.name} is compressed with HDF5 filter {unknown[0]}, which is not known here; "
            "install hdf5plugin, or write the file with bitshuffle-LZ4"
        )
    return None


def _has_bitshuffle() -> bool:
    try:
        import bitshuffle  # noqa: F401
    except ImportError:
        return False
    return True


def _register_filters(dataset: h5py.Dataset) -> None:
    try:
        import hdf5plugin  # noqa: F401  registers them
    except ImportError as error:
        raise BadInput(f"{dataset.file.filename}: {dataset.name} is compressed; pip install 'beamtide[xrd]'") from error


FORMAT = EigerFormat()
