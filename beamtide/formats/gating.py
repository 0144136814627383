"""Samples with their own clock, and the gates of the exposures: which samples lie in which gate. Pure.

A gate is covered if the capture has a sample at or before its start and one at or after its end, and in between no two
neighbours lie further apart than `GAP` sampling intervals (the median) and than a tenth of the gate. Gates that are not covered
have no samples.
"""

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

GAP = 1.5
"""Sampling intervals; more means that samples are missing."""
LARGEST_STEP = 0.4
"""Turns between two samples; with more, the number of whole turns may be another one."""
Array = NDArray[np.float64]


def ranges(times: Array, starts: Array, ends: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each gate the samples `low <= k < high` in it and one neighbour on either side; none if it is not covered."""
    low = np.searchsorted(times, starts, side="right") - 1
    high = np.searchsorted(times, ends, side="left") + 1
    known = np.isfinite(starts) & np.isfinite(ends) & (low >= 0) & (high <= len(times))
    allowed = np.maximum(GAP * interval(times), 0.1 * (ends - starts))
    for gate in np.flatnonzero(known):
        known[gate] = np.diff(times[low[gate] : high[gate]]).max(initial=0.0) <= allowed[gate]
    return np.where(known, low, 0), np.where(known, high, 0)


def interval(times: Array) -> float:
    """Return the usual time between two samples."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def edges(levels: Array, times: Array) -> tuple[Array, Array]:
    """Return start and end of each pulse of a trigger channel: half-way between the samples where its level goes up and down.

    High is above the middle between the lowest and the highest level. A pulse that has not ended ends at NaN.
    """
    known = np.isfinite(levels)
    levels, times = levels[known], times[known]
    if not levels.size or levels.min() == levels.max():
        return np.empty(0), np.empty(0)
    step = np.diff((levels > 0.5 * (levels.min() + levels.max())).astype(int))
    middles = 0.5 * (times[1:] + times[:-1])
    starts, ends = middles[step > 0], middles[step < 0]
    ends = ends[ends > starts[0]] if starts.size else ends[:0]
    return starts, np.concatenate([ends, np.full(len(starts) - len(ends), np.nan)])


def turns(phase: Array, times: Array) -> Array:
    """Return how many whole turns belong to each wrapped phase (in turns), counted from the first sample on.

    NaN from the first pair of samples on between which turns may have been lost: the phase steps by more than `LARGEST_STEP`,
    a sample is missing, or is NaN.
    """
    if not phase.size:
        return phase
    step = np.diff(phase)
    whole = -np.rint(step)
    lost = ~(np.abs(step + whole) <= LARGEST_STEP) | (np.diff(times) > GAP * interval(times))
    found = np.concatenate([[0.0], np.cumsum(whole)])
    found[np.concatenate([[not np.isfinite(phase[0])], lost]).cumsum() > 0] = np.nan
    return found


def check_gates(starts: Array, ends: Array) -> None:
    """Raise BadInput for gates that are not one behind the other."""
    wrong = np.flatnonzero(~(np.diff(starts) > 0) & np.isfinite(np.diff(starts)))
    if len(starts) != len(ends) or wrong.size or (ends < starts).any():
        where = f"gate {wrong[0] + 1} begins before gate {wrong[0]}" if wrong.size else "one ends before it begins, or has no end"
        raise BadInput(f"the gates are no exposures one behind the other: {where}")
