"""Motor stages, heavy half: counters that wrap around, statistics of the exposure gate, the laboratory frame. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.gridding import rotated
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Keep
from cluster_side.modalities.points.settings import LabSettings


def unwrapped(counts: Column, bits: int, middle: float) -> Column:
    """Return counts of an n-bit counter without its wrap-around: the value nearest to `middle` that ends in the same bits.

    Exact for integers below 2^53, and for each count by itself: right as long as the axis stays within half a counter range
    (2^(bits-1) counts) of the middle.
    """
    whole = 2.0**bits
    low = np.rint(middle) - whole / 2
    return np.asarray(np.mod(counts - low, whole) + low)


def gate_statistics(name: str, places: Column, keep: Keep = None) -> dict[str, NDArray[Any]]:
    """Return the mean of each exposure and, where there are several samples, their deviation, minimum and maximum."""
    datasets: dict[str, NDArray[Any]] = {name: columns.mean(places, keep)}
    if places.ndim == 2:
        datasets[f"{name}_std"] = columns.deviation(places, keep)
        datasets[f"{name}_min"], datasets[f"{name}_max"] = columns.least(places, keep), columns.greatest(places, keep)
    return datasets


def laboratory(axes: Mapping[str, NDArray[Any]], lab: LabSettings, degrees: Column | float) -> dict[str, NDArray[Any]]:
    """Return two axes (n,) in the laboratory frame; without a known angle there is no position."""
    u, v = perpendicular(axes[lab.axes[0]], axes[lab.axes[1]], lab.skew)
    return dict(zip(lab.into, rotated(u, v, -degrees), strict=True))


def perpendicular(u: Column, v: Column, skew: float) -> tuple[Column, Column]:
    """Return the coordinates in a right-angled frame along u, when the angle from u to v is 90 - skew degrees."""
    angle = np.radians(skew)
    return u + np.sin(angle) * v, np.cos(angle) * v
