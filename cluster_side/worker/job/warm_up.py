"""What a worker that is not needed yet does with its time: it opens a small HDF5 file.

Theory: a forked process shares its parent's memory until it writes there, and Python and HDF5 write wherever they look. So the
first file that a worker looks into costs it 700 copied pages, which takes longer than the look; 400 of them are copied by a
rehearsal, before its task comes. In the parent that would be of no use: the pages would be the parent's. The file lies in memory.
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
    """Open the file, see where it leads, and read it; False where that cannot be done: the task only takes longer."""
    with contextlib.suppress(OSError, ValueError), h5py.File(h5py.h5f.open_file_image(content)) as file:
        confinement.leads(file, 100)
        file["entry/data"][()]
        return bool(dict(file["entry"].attrs))
    return False
