"""Which values of a detector are measurements: one answer for every modality and engine, before any number is cast.

A value is none if it is

    not finite            NaN and infinity; of what is not a number nothing is known
    a mark                of the detector: what it writes where nothing was measured
    at an end             of its type: the largest number of signed integers, and the smallest, are no counts
    a dummy, saturated    as the settings say

Marks, where nobody names the detector: -1 and -2 in signed integers, and the two largest numbers in unsigned ones, which are the
same bits (Dectris: gaps and pixels that are dead or overflowed); 2^32 - 1 and 2^32 - 2 in floating point, to which such images
were cast by somebody else. A detector that pyFAI knows has the marks that pyFAI gives it, for this type of number (`DUMMY`,
`DELTA_DUMMY`: -2 +- 1.5 for Dectris, 0 for Lambda, none for most), so that nothing is left out that pyFAI's users keep.
The same rule holds for frames, spectra, and calibration images (dark, flat, background, the empty beam). Byte order is no matter
here: values are compared as numbers. Pure.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Range = tuple[float, float]
LARGEST_UINT32 = 2**32 - 1
SUBTRACTED = -3
"""Below this a signed integer is no mark of any detector: something was subtracted from the image."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a detector writes where nothing was measured: `dummy` +- `delta`, in the bits of each type."""

    dummy: int | None = None
    delta: float = 0.0
    known: bool = False
    """Whether the detector is known; then it has no marks but these."""


ANY = Marks()
"""Of a detector that nobody named."""


@dataclass(frozen=True, slots=True)
class Valid:
    """Which values are measurements: those from `low` to `high`, both included, that lie in none of the ranges `out`."""

    low: float = -np.inf
    high: float = np.inf
    out: tuple[Range, ...] = ()

    def all_of(self, values: NDArray[Any]) -> bool:
        """Return whether all values are measurements, by the least and the largest; they may be where this says no."""
        if values.dtype.kind == "b" or not values.size:
            return True
        most = values.max().item()  # NaN, if one of them is
        least = 0 if values.dtype.kind == "u" else values.min().item()
        return self.low <= least and most <= self.high and not any(most >= first and least <= last for first, last in self.out)

    def of(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which values are measurements; exact for every type, 64-bit integers too."""
        low, high, out = self.low, self.high, self.out
        if values.dtype.kind in "iu":
            (low, high), *out_whole = (_whole(one, values.dtype) for one in ((low, high), *out))
            out = tuple(out_whole)
        good = (values >= low) & (values <= high)
        for first, last in out:
            good &= ~((values >= first) & (values <= last))
        return np.asarray(good)


def valid_values(
    dtype: np.dtype[Any], marks: Marks = ANY, dummy: Range | None = None, overflow: float | None = None, least: float = -np.inf
) -> Valid:
    """Return which values of a type are measurements.

    `dummy`: values from and to, both included, that the settings name; `overflow`: from here on all are saturated; `least`: the
    smallest number that makes sense (0 where a root will be taken).
    """
    if dtype.kind not in "iuf":
        return Valid()
    low, high = _ends(dtype, marks)
    out = [*_marked(dtype, marks), *([dummy] if dummy else [])]
    if dtype.kind == "f":  # limits are numbers of the same type, so that nobody who compares rounds
        with np.errstate(over="ignore"):
            out = [(float(dtype.type(first)), float(dtype.type(last))) for first, last in out]
            highest = np.inf if overflow is None else float(np.nextafter(dtype.type(overflow), dtype.type(-np.inf)))
    else:
        highest = np.inf if overflow is None else math.ceil(overflow) - 1
    high = min(high, highest)
    if dtype.kind == "u" and out and out[0][0] <= high < out[0][1]:  # one limit is quicker to look at than two
        high = min(high, out.pop(0)[0] - 1)
    return Valid(max(low, least), high, tuple(out))


def bad_of_files(frames: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Return which pixels (row, column) the files of the frames say to be bad, in their array "mask"; None if they say nothing.

    One that is bad in one frame is bad in all. Files bring one image for all of their frames, the same object for each.
    """
    bad, last = None, None
    for own in frames.get("mask", ()):
        if own is not last:
            bad, last = (own != 0 if bad is None else bad | (own != 0)), own
    return bad


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in this machine's byte order, C-contiguous; a copy only where they are not."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def blank(dtype: np.dtype[Any]) -> Any:
    """Return a number of this type that is never a measurement."""
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def refuse_subtracted(frame: NDArray[Any], marks: Marks, name: str) -> None:
    """Raise BadInput for an image of signed integers of an unknown detector in which -1 may be a difference as well as a mark."""
    if frame.dtype.kind != "i" or marks.known or frame.dtype.itemsize < 2:
        return
    if not frame.size or frame.min() >= SUBTRACTED:
        return
    lowest = int(frame[frame > np.iinfo(frame.dtype).min].min(initial=0))  # the smallest number of all is no count
    if lowest < SUBTRACTED:
        raise BadInput(
            f"{name!r} holds {frame.dtype} down to {lowest}: something was subtracted, so that -1 and -2 may be counts, or marks "
            "of pixels that were not measured; give the images as they were measured (and a dark), or subtracted as float32"
        )


def _ends(dtype: np.dtype[Any], marks: Marks) -> Range:
    """Return the least and the largest value of a type that may be measurements."""
    if dtype.kind == "u":
        return 0, np.iinfo(dtype).max - (1 if marks.known else 2)
    if dtype.kind == "i":
        return np.iinfo(dtype).min + 1, np.iinfo(dtype).max - 1
    greatest = float(np.finfo(dtype).max)
    return -greatest, greatest


def _marked(dtype: np.dtype[Any], marks: Marks) -> tuple[Range, ...]:
    """Return the ranges of values of a type, both ends included, that are marks and lie between its ends."""
    cast = ((LARGEST_UINT32 - 1, LARGEST_UINT32 + 1),) if dtype.kind == "f" and dtype.itemsize > 2 else ()
    if marks.dummy is None:
        return ((-2, -1),) if dtype.kind == "i" and not marks.known else cast
    if dtype.kind == "f":
        return (marks.dummy - marks.delta, marks.dummy + marks.delta), *cast
    middle, whole = int(np.int64(marks.dummy).astype(dtype)), int(marks.delta)  # exact, also where 64 bits do not fit a float
    return ((middle - whole, middle + whole),)


def _whole(limits: Range, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the integers of a range, which may have no end or be none (NaN)."""
    info = np.iinfo(dtype)
    first, last = limits
    if math.isnan(first) or math.isnan(last):
        return 1, 0
    ends = (info.min - 1 if first == -math.inf else math.ceil(first)), (info.max + 1 if last == math.inf else math.floor(last))
    return ends
