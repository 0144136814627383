"""Positions of a whole scan, heavy half: spikes, comparisons, and maps by measured position.

All results are float64; values, positions and weights that are not finite are ignored.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.gridding import binned, grid_over, nearest_fill
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Frames
from cluster_side.modalities.positions.spec import ComparisonSettings, MapSettings, PositionSettings

LEAST = 0.05
"""A position closer to its neighbours than this part of a usual step is no spike, however small their spread."""
Flags = NDArray[np.bool_]


def load(settings: PositionSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        if "scan/line" not in frames:
            raise BadInput("spikes need all points at once: set source: {kind: scan} in the pipeline file")
        x, y = (columns.single(frames, name) for name in (settings.x, settings.y))
        spike = np.zeros(len(x), bool)
        for values in (x, y):
            spike |= spikes(values, frames["scan/line"], settings.spike, settings.neighbours)
        reasons = {0: ~np.isfinite(x * y), 1: spike}
        datasets: dict[str, NDArray[Any]] = {}
        if settings.map:
            datasets, reasons[2] = drawn(frames, settings.map, np.where(spike, np.nan, x), np.where(spike, np.nan, y))
            if settings.map.weights is not None:
                reasons[3] = ~(columns.single(frames, settings.map.weights) > 0)
        for name, pair in settings.compare.items():
            datasets |= compared(name, frames, pair)
        return {"flags/position": columns.flagged(len(x), reasons), **datasets}

    return kernel


def spikes(values: Column, line: NDArray[np.int64], limit: float, neighbours: int) -> Flags:
    """Return which positions (n,) lie further than `limit` robust deviations from what their neighbours on the line say.

    Hampel's identifier (F. R. Hampel, J. Am. Stat. Assoc. 69 (1974) 383) on what a line at the usual step leaves: median +-
    limit x 1.4826 MAD over 2 x `neighbours` + 1 points, the point itself among them. The spread of so few points is uncertain, so
    the MAD is at least the median distance of all points of the scan from their medians. Lines shorter than 5 points are not
    checked.
    """
    off, mad, least = np.zeros((3, len(values)))
    for number in np.unique(line):
        at = np.flatnonzero((line == number) & np.isfinite(values))
        if at.size >= 5:
            off[at], mad[at], least[at] = _distances(values[at], min(neighbours, (at.size - 1) // 2))
    usual = float(np.median(off[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
    return np.asarray(off > np.maximum(limit * 1.4826 * np.maximum(mad, usual), least))


def _distances(values: Column, neighbours: int) -> tuple[Column, Column, float]:
    """Return the distance of each point of a line from the median of its window, the window's MAD, and what is no spike."""
    steps = np.diff(values)
    rest = values - np.median(steps) * np.arange(len(values))
    window = 2 * neighbours + 1
    first = np.clip(np.arange(len(values)) - neighbours, 0, len(values) - window)  # at the ends, the window is not in the middle
    around = np.lib.stride_tricks.sliding_window_view(rest, window)[first]
    middle = np.median(around, axis=1)
    return np.abs(rest - middle), np.median(np.abs(around - middle[:, None]), axis=1), LEAST * float(np.median(np.abs(steps)))


def compared(name: str, frames: Frames, pair: ComparisonSettings) -> dict[str, NDArray[Any]]:
    """Return correlation, slope and root mean square residual of `second` (in the unit of `first`) over `first`, as (1,)."""
    one, other = columns.single(frames, pair.first), columns.single(frames, pair.second) * pair.scale
    known = np.isfinite(one) & np.isfinite(other)
    found = np.full(3, np.nan)
    if known.sum() > 2 and np.ptp(one[known]) > 0:
        a, b = one[known] - one[known].mean(), other[known] - other[known].mean()
        slope = (a @ b) / (a @ a)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:] = (a @ b) / np.sqrt((a @ a) * (b @ b)), slope, np.sqrt(np.mean((b - slope * a) ** 2))
    return {f"{kind}/{name}": found[at : at + 1] for at, kind in enumerate(("correlation", "scale", "difference"))}


def drawn(frames: Frames, wanted: MapSettings, x: Column, y: Column) -> tuple[dict[str, NDArray[Any]], Flags]:
    """Return each dataset as the weighted mean of the points in each cell (y, x), and which points lie in no cell."""
    grid = grid_over(x, y, *wanted.step)
    weights = None if wanted.weights is None else columns.single(frames, wanted.weights)
    points = binned(grid, x, y, np.ones(len(x)), weights)
    maps = {name: binned(grid, x, y, columns.single(frames, path), weights).mean() for name, path in wanted.datasets.items()}
    found: dict[str, NDArray[Any]] = {"grid_x": grid.x, "grid_y": grid.y, "grid/weight": points.weight}
    if wanted.fill:
        whole = {name: nearest_fill(values, (grid.y_step, grid.x_step)) for name, values in maps.items()}
        maps = {name: values for name, (values, _) in whole.items()}
        found["grid/filled"] = np.any([empty for _, empty in whole.values()], axis=0).astype(np.uint8)
    return found | {f"grid/{name}": values for name, values in maps.items()}, ~np.isfinite(x * y)
