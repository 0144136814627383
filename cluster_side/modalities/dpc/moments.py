"""Moments of frames: sum, centre of mass and width. Pure.

Theory: sum, centre of mass and width of a frame need only its two profiles, the sums of its rows and of its columns. Each is a
matrix-vector product over the frames of a task, in blocks that stay in the processor's cache, so memory is read once. Products
are in float32 over one line of pixels (relative error below 1e-6), everything after in float64, about the middle of the frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import pixels

Values = NDArray[np.float64]
Frame = NDArray[np.float32]
SURE = 0.999
"""The part of a limit below which a sum in single precision certainly lies below it."""
BLOCK = 1 << 17
"""Pixels worked on at once."""


@dataclass(frozen=True, slots=True)
class FrameCorrection:
    """The correction of every frame: pixels to leave out, their reading without beam, and 1 beyond the bright disc."""

    masked: NDArray[np.bool_] | None = None
    dark: Frame | None = None
    outside: Frame | None = None


@dataclass(frozen=True, slots=True)
class Profiles:
    """Sums over the rows (n, y) and columns (n, x) of frames, what lies outside the disc (n,), and which frames lost pixels."""

    rows: Values
    columns: Values
    outside: Values
    lost: NDArray[np.bool_]


def profiles(frames: NDArray[Any], correction: FrameCorrection) -> Profiles:
    """Return the profiles of frames (n, y, x). What is no measurement (`modalities.pixels`) is left out."""
    count, height, width = frames.shape
    found = Profiles(np.empty((count, height)), np.empty((count, width)), np.zeros(count), np.zeros(count, bool))
    ones = np.ones(width, np.float32), np.ones(height, np.float32)
    valid = pixels.valid_values(frames.dtype)
    for where, block in _blocks(frames, correction):
        with np.errstate(invalid="ignore", over="ignore"):  # that is what is looked for
            rows = block @ ones[0]
        if (correction.dark is not None or not _surely(rows, frames.dtype, valid)) and not valid.all_of(frames[where]):
            block, found.lost[where] = _measured(block, frames[where], valid, correction)
            rows = block @ ones[0]
        found.rows[where], found.columns[where] = rows, ones[1] @ block
        if correction.outside is not None:
            found.outside[where] = block.reshape(len(block), -1) @ correction.outside.ravel()
    return found


def _surely(rows: Frame, dtype: np.dtype[Any], valid: pixels.Valid) -> bool:
    """Return whether the sums of rows show that all of their values are measurements; if not, they have to be looked at.

    Where no value is negative, none is larger than their sum; and a sum with NaN or infinity is none. (In floating point, a mark
    of 2^32 beside values that are as large and negative would pass; no detector has those.)
    """
    if dtype.kind == "u":
        return float(rows.max(initial=0.0)) < SURE * valid.high
    return dtype.kind == "f" and bool(np.abs(rows).max(initial=0.0) < SURE * pixels.LARGEST_UINT32)


def _measured(
    block: Frame, raw: NDArray[Any], valid: pixels.Valid, correction: FrameCorrection
) -> tuple[Frame, NDArray[np.bool_]]:
    """Return frames without what is no measurement, and which of them lost pixels so, beyond those that are masked."""
    bad = ~valid.of(raw)
    if correction.masked is not None:
        bad &= ~correction.masked
    return np.where(bad, np.float32(0), block), np.asarray(bad.any(axis=(1, 2)))


def _blocks(frames: NDArray[Any], correction: FrameCorrection) -> Iterator[tuple[slice, Frame]]:
    """Yield frames as float32, block by block, without dark and masked pixels."""
    step = max(1, BLOCK // (frames.shape[1] * frames.shape[2]))
    for first in range(0, len(frames), step):
        where = slice(first, first + step)
        raw = frames[where]
        block = raw.astype(np.float32, copy=correction.dark is not None or correction.masked is not None)
        if correction.dark is not None:
            block -= correction.dark
        if correction.masked is not None:
            np.copyto(block, np.float32(0), where=correction.masked)
        yield where, block


def total(found: Profiles) -> Values:
    """Return the sum of each frame (n,)."""
    return np.asarray(found.columns.sum(axis=1))


def middle(profile: Values) -> tuple[Values, Values]:
    """Return the centre of mass and the r.m.s. width of profiles (n, length) in pixels; pixel 0 has its middle at 0.

    NaN where nothing was counted. A width of what is negative (over-subtracted dark) is NaN too.
    """
    length = profile.shape[1]
    at = np.arange(length) - (length - 1) / 2
    weight = profile.sum(axis=1)
    safe = np.where(weight > 0, weight, np.nan)
    first, second = profile @ at / safe, profile @ at**2 / safe
    variance = second - first**2
    return first + (length - 1) / 2, np.sqrt(np.where(variance >= 0, variance, np.nan))


def beyond(shape: tuple[int, int], x: float, y: float, radius: float) -> Frame:
    """Return 1 for pixels whose middle lies further than `radius` from (x, y), 0 for the others; BadInput if all or none do."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    outside = (rows - y) ** 2 + (columns - x) ** 2 > radius**2
    if outside.all() or not outside.any():
        raise BadInput(
            f"disc: a circle of {radius} pixels about ({x}, {y}) leaves nothing inside, or nothing outside, of {shape}"
        )
    return outside.astype(np.float32)
