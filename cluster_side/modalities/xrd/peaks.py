"""Numbers from a pattern: the mean of a region, and area, position and width of a peak above a straight background."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Values = NDArray[np.float64]
EDGE = 0.15
"""The background of a peak is the straight line through the means of this part of the range at either end."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak in each of several patterns; NaN where it is not above its background."""

    area: Values
    position: Values
    width: Values
    """Standard deviation."""


def chosen(radial: Values, limits: tuple[float, float], name: str) -> NDArray[np.int64]:
    """Return the bins of a range; BadInput if there are too few."""
    found = np.flatnonzero((radial >= limits[0]) & (radial <= limits[1]))
    if len(found) < 3:
        raise BadInput(
            f"{name}: only {len(found)} bins lie between {limits[0]:g} and {limits[1]:g}; "
            f"the pattern runs from {radial[0]:.4g} to {radial[-1]:.4g} in {len(radial)} bins"
        )
    return found


def peak(radial: Values, patterns: Values) -> Peak:
    """Measure a peak: `radial` (bin) and `patterns` (pattern, bin) are those of its range."""
    edge = max(1, round(EDGE * len(radial)))
    low, high = np.nanmean(patterns[:, :edge], axis=1), np.nanmean(patterns[:, -edge:], axis=1)
    left, right = radial[:edge].mean(), radial[-edge:].mean()
    line = low[:, None] + (high - low)[:, None] * ((radial - left) / (right - left))
    net = np.where(np.isfinite(patterns), patterns - line, 0.0)
    step = (radial[-1] - radial[0]) / (len(radial) - 1)
    total = net.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = net / np.where(total > 0, total, np.nan)[:, None]
        position = (weights * radial).sum(axis=1)
        variance = (weights * np.square(radial - position[:, None])).sum(axis=1)
        return Peak(total * step, position, np.sqrt(np.where(variance > 0, variance, np.nan)))
