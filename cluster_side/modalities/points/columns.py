"""Columns of a task: one value per exposure (n,), or several samples (n, samples); and the flags that say what is wrong with one.

A lost trigger is NaN and stays NaN; so is an exposure with a lost sample. All results are float64. Every function here computes
each exposure by itself, so that a result does not depend on how a scan was cut into tasks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Column = NDArray[np.float64]
Flags = NDArray[np.uint8]
Keep = NDArray[np.bool_] | None
"""Which samples count (n, samples); None: all."""
Frames = Mapping[str, NDArray[Any]]


def column(frames: Frames, field: str) -> Column:
    """Return a column in float64, (n,) or (n, samples); BadInput lists those that there are."""
    if field not in frames:
        raise BadInput(f"the frames have no column {field!r}, only {', '.join(sorted(frames))}; correct `field` in the settings")
    array = np.asarray(frames[field])
    if array.dtype.kind not in "biuf":
        raise BadInput(f"column {field!r} holds {array.dtype}, not numbers; correct `field` in the settings")
    values = array.astype(np.float64)
    if values.ndim not in {1, 2} or (values.ndim == 2 and not values.shape[1]):
        raise BadInput(f"column {field!r} has shape {values.shape}; expected (exposures,) or (exposures, samples)")
    return values


def single(frames: Frames, field: str) -> Column:
    """Return a column with one value per exposure (n,): the mean of its samples where it has several."""
    return mean(column(frames, field))


def given(frames: Frames, value: float | str) -> Column | float:
    """Return a number of the settings, or the column (n,) that they name instead of one."""
    return single(frames, value) if isinstance(value, str) else value


def mean(values: Column, keep: Keep = None) -> Column:
    """Return the mean of the samples of each exposure; one value per exposure comes back as it is."""
    return values if values.ndim == 1 else np.asarray(values.mean(axis=1, where=_chosen(keep)))


def deviation(values: Column, keep: Keep = None) -> Column:
    """Return the standard deviation of the samples of each exposure (n, samples), about their mean, over their number."""
    return np.asarray(values.std(axis=1, where=_chosen(keep)))


def least(values: Column, keep: Keep = None) -> Column:
    """Return the smallest sample of each exposure (n, samples)."""
    return np.asarray(values.min(axis=1, where=_chosen(keep), initial=np.inf))


def greatest(values: Column, keep: Keep = None) -> Column:
    """Return the largest sample of each exposure (n, samples)."""
    return np.asarray(values.max(axis=1, where=_chosen(keep), initial=-np.inf))


def _chosen(keep: Keep) -> Any:
    return True if keep is None else keep


def quotient(value: Column, divisor: Column) -> Column:
    """Return value / divisor; NaN where the divisor is not above zero."""
    return np.asarray(np.divide(value, divisor, out=np.full(value.shape, np.nan), where=divisor > 0))


def contrast(plus: Column, minus: Column) -> Column:
    """Return (plus - minus) / (plus + minus); NaN where the sum is not above zero."""
    return quotient(plus - minus, plus + minus)


def monitor_factor(frames: Frames, monitor: str | None, reference: float | None, length: int) -> Column:
    """Return reference / monitor of each exposure (length,), 1 without a monitor; NaN where it is not a positive number."""
    if monitor is None or reference is None:
        return np.ones(length)
    if monitor not in frames:
        raise BadInput(f"normalise_to: the task has no {monitor!r}; name it in the pipeline's inputs")
    values = np.asarray(frames[monitor], float)
    return np.asarray(np.divide(reference, values, out=np.full(length, np.nan), where=values > 0))


def trapezoid(values: Column, times: Column) -> Column:
    """Return the mean over time of each exposure, from samples and their times (n, samples): the integral over the duration.

    Where a time is NaN there is no sample: it fills up an exposure with fewer samples than the longest, at its end. Times that do
    not grow within an exposure give NaN: the clock was restarted in the middle, and the duration of its samples is unknown.
    An exposure with a single sample has that value.
    """
    if values.shape != times.shape or values.ndim != 2:
        raise BadInput(f"samples of shape {values.shape} cannot have times of shape {times.shape}; both are (exposures, samples)")
    pair = np.isfinite(times[:, 1:])
    steps = np.where(pair, np.diff(times, axis=1), 0.0)
    middles = np.where(pair, 0.5 * (values[:, 1:] + values[:, :-1]), 0.0)
    duration = steps.sum(axis=1)
    found = np.divide((steps * middles).sum(axis=1), duration, out=np.full(len(values), np.nan), where=duration > 0)
    found[(pair & ~(steps > 0)).any(axis=1)] = np.nan
    return np.where(pair.any(axis=1) | ~np.isfinite(times[:, 0]), found, values[:, 0])


def spikes(values: Column, limit: float = 5.0) -> NDArray[np.bool_]:
    """Return which samples (n, samples) of an exposure lie further than `limit` robust deviations from its median.

    Hampel's identifier: median +- limit x 1.4826 MAD (F. R. Hampel, J. Am. Stat. Assoc. 69 (1974) 383), over the whole exposure.
    Fewer than five samples are too few to call one of them a spike; so are samples of which more than half are equal.
    """
    if values.shape[1] < 5:
        return np.zeros(values.shape, bool)
    off = np.abs(values - np.median(values, axis=1, keepdims=True))
    mad = 1.4826 * np.median(off, axis=1, keepdims=True)
    return np.asarray((off > limit * mad) & (mad > 0))


def flagged(length: int, reasons: Mapping[int, NDArray[np.bool_] | bool]) -> Flags:
    """Return one number per exposure in which each bit stands for a reason: bit -> where it holds."""
    flags = np.zeros(length, np.uint8)
    for bit, where in reasons.items():
        flags |= np.where(where, np.uint8(1 << bit), np.uint8(0))
    return flags
