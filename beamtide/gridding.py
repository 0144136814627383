"""Gridding: from values by acquisition index to maps. Pure; shared by writers, kernels and analysis.

Two ways, never mixed:
- by scan order (`by_order`, `places`): index i of a scan (slow, fast) belongs to line i // fast; with `snake`, every second line
  runs backwards. Each value is at its own point; nothing is interpolated; what was not measured is NaN.
- by measured positions (`Bins`): weighted sums per cell. Two `Bins` of the same grid are added, so that the parts of a scan may
  come in any order and any size; the mean is taken last. Cells without values are NaN until `nearest_fill` fills them and says
  which.

`fit_lattice` says how the raster of a scan lies in space (pitch, rotation, skew), so that rotated scans need no interpolation.
Lengths are in the unit of the positions throughout.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

MOST_CELLS = 1 << 26
"""The most cells of a map (64 million numbers); more means a mistake in a unit."""
Array = NDArray[Any]
Values = NDArray[np.float64]
Places = NDArray[np.int64]


def places(shape: tuple[int, ...], count: int, *, snake: bool = False) -> tuple[Places, Places]:
    """Return line and column of the first `count` indexes of a scan; (line 0, column i) for a one-dimensional one."""
    fast = shape[-1]
    index = np.arange(count)
    line, column = (index // fast, index % fast) if len(shape) > 1 else (np.zeros_like(index), index)
    return line, np.where((line % 2 == 1) & snake, fast - 1 - column, column)


def by_order(rows: Array, shape: tuple[int, ...], *, snake: bool = False) -> Array:
    """Return values, one per index, in the shape of the scan; missing ones are NaN, surplus ones are left out."""
    dtype = rows.dtype if rows.dtype.kind in "fc" else np.dtype(np.float64)
    flat = np.full(int(np.prod(shape)), np.nan, dtype)
    count = min(flat.size, len(rows))
    flat[:count] = rows[:count]
    values = flat.reshape(shape)
    if snake and len(shape) == 2:
        values[1::2] = values[1::2, ::-1].copy()
    return values


def runs_back_and_forth(x: Array, y: Array, shape: tuple[int, ...]) -> bool | None:
    """Say by measured positions (n,) whether every second line of a scan (slow, fast) ran backwards; None: they do not show it.

    A line runs along the straight that fits its positions best; in nine of ten pairs, neighbours run against each other, or not.
    """
    count = min(len(x), len(y), int(np.prod(shape)))
    lines = count // shape[-1] if len(shape) == 2 and shape[-1] > 1 else 0
    if lines < 2:
        return None
    measured = np.stack([np.asarray(one[: lines * shape[-1]], float).reshape(lines, -1) for one in (x, y)], axis=-1)
    good = np.isfinite(measured).all(axis=-1)
    column = np.where(good, np.arange(shape[-1]), 0.0)
    held = np.maximum(good.sum(axis=1), 1)
    column = np.where(good, column - (column.sum(axis=1) / held)[:, None], 0.0)
    places = np.where(good[..., None], measured, 0.0)
    places = np.where(good[..., None], places - (places.sum(axis=1) / held[:, None])[:, None], 0.0)
    spread = (column**2).sum(axis=1)
    slope = (column[..., None] * places).sum(axis=1) / np.where(spread > 0, spread, np.inf)[:, None]
    rest = np.sqrt(((places - column[..., None] * slope[:, None]) ** 2).sum(axis=(1, 2)) / held)
    length = np.linalg.norm(slope, axis=1) * np.ptp(column, axis=1)
    moved = (good.sum(axis=1) > 1) & (length > 2 * rest) & (length > 0.1 * length.max())
    pairs = moved[1:] & moved[:-1]
    along = (slope[1:] * slope[:-1]).sum(axis=1)[pairs]
    if len(along) < max(1, (lines - 1) // 2):
        return None
    back = float(np.mean(along < 0))
    return True if back >= 0.9 else False if back <= 0.1 else None


@dataclass(frozen=True, slots=True)
class Grid:
    """Regular cells: cell (i, j) has its middle at x = x0 + j x_step, y = y0 + i y_step."""

    x0: float
    y0: float
    x_step: float
    y_step: float
    shape: tuple[int, int]
    """(rows along y, columns along x)."""

    def __post_init__(self) -> None:
        if not all(np.isfinite([self.x0, self.y0, self.x_step, self.y_step])) or self.x_step == 0 or self.y_step == 0:
            raise BadInput(f"a grid needs finite origins and steps other than 0, not {self}")
        if min(self.shape) < 1:
            raise BadInput(f"a grid needs at least one row and one column, not {self.shape}")

    @property
    def x(self) -> Values:
        """The middles of the columns."""
        return np.asarray(self.x0 + self.x_step * np.arange(self.shape[1]))

    @property
    def y(self) -> Values:
        """The middles of the rows."""
        return np.asarray(self.y0 + self.y_step * np.arange(self.shape[0]))


def grid_over(x: Array, y: Array, x_step: float, y_step: float) -> Grid:
    """Return the grid of these steps that covers all finite positions; BadInput when there are none, or too many cells."""
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        raise BadInput("there is no finite position to lay a grid over; look at the positions pipeline of this scan")
    (x0, x1), (y0, y1) = ((float(values[good].min()), float(values[good].max())) for values in (x, y))
    shape = (round((y1 - y0) / abs(y_step)) + 1, round((x1 - x0) / abs(x_step)) + 1) if x_step and y_step else (0, 0)
    if shape[0] * shape[1] > MOST_CELLS:
        raise BadInput(
            f"a step of {x_step:g} x {y_step:g} over {x1 - x0:g} x {y1 - y0:g} makes a map of {shape[1]} x {shape[0]} cells; "
            "give the step in the unit of the positions, or a larger one"
        )
    return Grid(x0, y0, abs(x_step), abs(y_step), shape)


@dataclass(frozen=True, slots=True)
class Bins:
    """Weighted sums on a grid, to which the parts of a scan are added."""

    grid: Grid
    total: Values
    """Sum of weight x value per cell."""
    weight: Values
    """Sum of weights per cell."""
    outside: int = 0
    """Values whose position is outside the grid, or unknown."""

    def __add__(self, other: "Bins") -> "Bins":
        if self.grid != other.grid:
            raise BadInput(f"bins on different grids cannot be added: {self.grid} and {other.grid}")
        return Bins(self.grid, self.total + other.total, self.weight + other.weight, self.outside + other.outside)

    def mean(self) -> Values:
        """Return the weighted mean of each cell; NaN for cells without values."""
        found = np.full(self.grid.shape, np.nan)
        np.divide(self.total, self.weight, out=found, where=self.weight > 0)
        return found


def binned(grid: Grid, x: Array, y: Array, values: Array, weights: Array | None = None) -> Bins:
    """Put values (n,) at positions x, y (n,) into cells. Values, positions or weights that are not finite are no measurement.

    A position belongs to the cell whose middle is nearest. BadInput: arrays of different lengths, or a negative weight.
    """
    lengths = {len(array) for array in (x, y, values) + (() if weights is None else (weights,))}
    if len(lengths) != 1:
        raise BadInput(f"positions and values must belong to the same indexes, but there are {sorted(lengths)} of them")
    rows, columns = grid.shape
    column = np.floor((np.asarray(x, float) - grid.x0) / grid.x_step + 0.5)
    row = np.floor((np.asarray(y, float) - grid.y0) / grid.y_step + 0.5)
    here = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)  # NaN compares false
    good = here & np.isfinite(values)
    if weights is not None:
        good &= np.isfinite(weights)
        if (np.asarray(weights)[good] < 0).any():
            raise BadInput("weights must not be negative; correct the monitor that the weights come from")
    cell = row[good].astype(np.int64) * columns + column[good].astype(np.int64)
    weight = np.ones(cell.size) if weights is None else np.asarray(weights, float)[good]
    total = np.bincount(cell, weight * np.asarray(values, float)[good], rows * columns)
    weights_sum = np.bincount(cell, weight, rows * columns)
    shaped = [sums.astype(np.float64).reshape(grid.shape) for sums in (total, weights_sum)]
    return Bins(grid, shaped[0], shaped[1], int((~here).sum()))


def nearest_fill(values: Array, steps: tuple[float, float] = (1.0, 1.0)) -> tuple[Array, NDArray[np.bool_]]:
    """Return a map whose NaN are filled with the nearest value, and which cells were filled; `steps` is (y, x).

    Exact Euclidean distance (scipy.ndimage.distance_transform_edt). A map without any value stays as it is.
    """
    from scipy import ndimage  # heavy, and only needed here

    empty = np.isnan(values)
    if not empty.any() or empty.all():
        return values.copy(), np.zeros(values.shape, bool)
    where = ndimage.distance_transform_edt(empty, sampling=np.abs(steps), return_distances=False, return_indices=True)
    return values[tuple(where)], empty


@dataclass(frozen=True, slots=True)
class Lattice:
    """How a raster lies in space: position = origin + column x fast + line x slow, each an (x, y) vector."""

    origin: tuple[float, float]
    fast: tuple[float, float]
    slow: tuple[float, float]
    rms: float
    """Root mean square distance of the measured positions from it."""


def fit_lattice(x: Array, y: Array, line: Array, column: Array) -> Lattice:
    """Fit a raster to measured positions (n,) by least squares; what is not finite is left out.

    BadInput when nothing moved along an axis, or when fewer than three positions are known.
    """
    good = np.isfinite(x) & np.isfinite(y)
    if good.sum() < 3:
        raise BadInput(f"only {int(good.sum())} positions are known; a raster needs three")
    terms = np.stack([np.ones(good.sum()), column[good], line[good]], axis=1).astype(float)
    measured = np.stack([x[good], y[good]], axis=1).astype(float)
    found, _, rank, _ = np.linalg.lstsq(terms, measured, rcond=None)
    if rank < 3:
        raise BadInput("a raster needs positions in at least two lines and two columns")
    rms = float(np.sqrt(np.mean(np.sum((measured - terms @ found) ** 2, axis=1))))
    (x0, y0), (fast_x, fast_y), (slow_x, slow_y) = found.tolist()
    return Lattice((x0, y0), (fast_x, fast_y), (slow_x, slow_y), rms)


def rotated(x: Array, y: Array, degrees: Array | float) -> tuple[Array, Array]:
    """Turn positions counter-clockwise by an angle (one for all, or one each) about the origin."""
    angle = np.radians(degrees)
    return np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
