"""The checksum of an HDF5 dataset: the writer adds it to every array, and `beamtide.results.reading.verify` compares it.

It is the 64-bit XXH3 of the array's bytes in C order, in hexadecimal; of text, of its lines joined by a zero byte.
"""

import math

import h5py
import numpy as np
import xxhash

ATTRIBUTE = "xxh3"
PIECE = 4 << 20


def of_dataset(stored: h5py.Dataset) -> str:
    """Return the checksum of a dataset as it lies in the file, read in pieces of whole rows."""
    if h5py.check_string_dtype(stored.dtype) is not None:
        values = np.atleast_1d(stored[()]).reshape(-1)
        lines = [value if isinstance(value, bytes) else str(value).encode() for value in values]
        return xxhash.xxh3_64_hexdigest(b"\0".join(lines))
    if not stored.shape:
        return xxhash.xxh3_64_hexdigest(np.asarray(stored[()]).tobytes())
    state = xxhash.xxh3_64()
    step = max(1, PIECE // max(1, math.prod(stored.shape[1:]) * stored.dtype.itemsize))
    for start in range(0, stored.shape[0], step):
        state.update(np.ascontiguousarray(stored[start : start + step]).tobytes())
    return state.hexdigest()
