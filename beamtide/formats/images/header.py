"""What the header of an image file says, read by ourselves: enough to count frames and to refuse, before fabio reads the numbers.

Theory: fabio trusts what it reads. It fills up a file that was cut off with zeros, follows a chain of TIFF pages in a circle for
ever, waits for a mark of CBF that never comes, opens other files that an EDF names, and takes memory for any size. So a file is
looked at first: each frame must be said by the header and lie in the file. Files that end before what their header says are
Unfinished; what is not read as it was measured (colours, compression, other files) is BadInput. Sentences here have no beginning:
who opened the file puts its name there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished

Shape = tuple[int, int]
Frame = tuple[Shape, np.dtype[Any]]
"""Rows and columns of a frame, and its type of number in this machine's byte order."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The frames of an image file: all of one shape (rows, columns) and type of number."""

    kind: str
    """"TIFF", "CBF" or "EDF"."""
    shape: Shape
    dtype: np.dtype[Any]
    frames: int
    """How many are whole."""
    binary: tuple[int, int] = (0, 0)
    """CBF: where the compressed image begins, and its bytes."""
    digest: str = ""
    """CBF: the MD5 of these bytes in base64, if it says one."""


def ends(size: int, why: str) -> Unfinished:
    """Return what is wrong with a file of so many bytes that ends too early."""
    return Unfinished(f"ends at byte {size}, and {why}: it is still being written, or damaged")


def sensible(shape: Shape) -> None:
    """Raise BadInput for a frame without pixels."""
    if min(shape) < 1:
        raise BadInput(f"has a header that says {shape[0]} x {shape[1]} pixels")


def words(frame: Frame) -> str:
    """Return shape and type in words."""
    (rows, columns), dtype = frame
    return f"{rows} x {columns} pixels of {dtype}"
