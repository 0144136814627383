"""Warm-up: a worker that waits opens a small in-memory HDF5 file, so that pages are copied before its task comes.

Theory: a forked process shares its parent's memory until it writes there, and Python and HDF5 write wherever they read. So the
first file that a worker opens makes the kernel copy 700 pages, which takes longer than the reading. The warm-up gets 400 of them
copied before the task comes. Doing this in the parent would not help: the copies would belong to the parent.
"""

import contextlib
import io

import h5py
import numpy as np

from beamtide.formats import confinement


def script() -> bytes:
    """Return a small HDF5 file."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["entry/data"] = np.zeros((4, 4))
        file["entry"].attrs["NX_class"] = "NXentry"
    return content.getvalue()


def run(content: bytes) -> bool:
    """Open the file, check its links, and read it; False where that cannot be done: then the task only takes longer."""
    with contextlib.suppress(OSError, ValueError), h5py.File(h5py.h5f.open_file_image(content)) as file:
        confinement.leads(file, 100)
        file["entry/data"][()]
        return bool(dict(file["entry"].attrs))
    return False
