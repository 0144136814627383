"""A map: the values of a scan on a grid.

Gridding is by scan order: index i of a scan of shape (slow, fast) belongs to line i // fast; in a snake scan every second line
runs backwards, as the measured positions show, or else as somebody said. Nothing is interpolated; what was not measured is NaN.
The axes are regular grids, straight lines (least squares) through the mean measured positions of the columns and of the rows,
because viewers draw regular grids as images; the measured positions lie beside them. Without positions the axes are the numbers
of column and row.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from beamtide.gridding import by_order, runs_back_and_forth
from beamtide.messages.metadata import Scan, ScanState
from beamtide.writers import Axis, Map, Positions

__all__ = ["Axis", "Map", "Positions", "axes_of", "grid", "line_slices"]
Array = NDArray[Any]


def as_told(state: ScanState | None, snake: bool | None) -> ScanState | None:
    """Return a scan with its lines as the pipeline file says that they run; None leaves it."""
    if state is None or snake is None:
        return state
    return msgspec.structs.replace(state, scan=msgspec.structs.replace(state.scan, snake=snake))


def as_measured(scan: Scan, positions: Positions | None) -> Scan:
    """Return the scan with its lines as the positions show them to have run; as it was said where they do not show it."""
    if positions is None:
        return scan
    shown = runs_back_and_forth(positions.x, positions.y, scan.shape)
    return scan if shown in (None, scan.snake) else msgspec.structs.replace(scan, snake=shown)


def grid(rows: Array, scan: Scan) -> Array:
    """Return the values of a scan, one per index, in the shape of the scan; missing ones are NaN, surplus ones left out."""
    return by_order(rows, scan.shape, snake=scan.snake)


def line_slices(scan: Scan, start: int, stop: int) -> list[tuple[slice, tuple[Any, ...]]]:
    """Return pairs (which of the rows `start <= index < stop`, where they go in the grid), line by line."""
    if len(scan.shape) == 1:
        stop = min(stop, scan.shape[0])
        return [(slice(0, stop - start), (slice(start, stop),))] if stop > start else []
    fast, pairs = scan.shape[1], []
    for line in range(start // fast, min(-(-stop // fast), scan.shape[0])):
        first, last = max(start, line * fast), min(stop, (line + 1) * fast)
        left, right = first - line * fast, last - line * fast
        rows = slice(first - start, last - start)
        if scan.snake and line % 2:
            rows = slice(last - start - 1, first - start - 1 if first > start else None, -1)
            left, right = fast - right, fast - left
        pairs.append((rows, (line, slice(left, right))))
    return pairs


def axes_of(scan: Scan, positions: Positions | None) -> tuple[Axis, ...]:
    """Return the axes of the maps of a scan, slowest first."""
    if positions is None:
        names = ("row", "column") if len(scan.shape) == 2 else ("index",)
        return tuple(Axis(name, np.arange(length, dtype=float), "1") for name, length in zip(names, scan.shape, strict=False))
    x = ("x", grid(np.asarray(positions.x, float), scan), positions.units_x)
    y = ("y", grid(np.asarray(positions.y, float), scan), positions.units_y)
    if len(scan.shape) == 1:
        along = x if _span(x[1]) >= _span(y[1]) else y
        return (_axis(along, 0),)
    slow, fast = (y, x) if _runs_along(x[1], y[1]) else (x, y)
    return (_axis(slow, 0), _axis(fast, 1))


def _axis(measured: tuple[str, Array, str], dimension: int) -> Axis:
    name, values, units = measured
    means = values if values.ndim == 1 else _means(values, dimension)
    line = _straight(means)
    if line is None:  # nothing was measured, or nothing moved: use pixel numbers
        return Axis(name, np.arange(len(means), dtype=float), "1", values)
    return Axis(name, line, units, values)


def _runs_along(x: Array, y: Array) -> bool:
    """Whether x is the fast axis: x differs more between columns, and y between rows, than the other way round."""
    spans = [_span(_means(values, dimension)) for values, dimension in ((x, 1), (y, 0), (y, 1), (x, 0))]
    return spans[0] * spans[1] >= spans[2] * spans[3]


def _means(values: Array, dimension: int) -> Array:
    """Mean along the other dimension, without the NaN; NaN where there is nothing."""
    good = np.isfinite(values)
    count = good.sum(axis=1 - dimension)
    total = np.where(good, values, 0.0).sum(axis=1 - dimension)
    means: Array = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means


def _span(values: Array) -> float:
    good = values[np.isfinite(values)]
    return float(np.ptp(good)) if good.size else 0.0


def _straight(means: Array) -> Array | None:
    at = np.flatnonzero(np.isfinite(means))
    if not at.size:
        return None
    if at.size == 1:
        return np.asarray(means[at[0]] + (np.arange(len(means), dtype=float) - at[0]))
    step, origin = np.polyfit(at, means[at], 1)
    if abs(step) < 1e-9 * max(1.0, _span(means)):
        return None  # it did not move: a grid of equal values is no axis
    return np.asarray(origin + step * np.arange(len(means)))
