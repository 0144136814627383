"""Gridding against its naive loops: scan order, weighted bins that merge in any order, nearest fill, the raster in space."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import binned_statistic_2d

from beamtide import gridding
from beamtide.errors import BadInput

shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
GRID = gridding.Grid(x0=-1.0, y0=2.0, x_step=0.5, y_step=0.25, shape=(6, 8))


def scattered(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = random.uniform(-2, 4, count), random.uniform(1, 5, count)
    values, weights = random.normal(size=count), random.uniform(0, 3, count)
    for array in (x, y, values, weights):
        array[random.random(count) < 0.05] = np.nan
    return x, y, values, weights


@given(shapes, st.booleans(), st.integers(0, 70))
def test_places_and_by_order_are_the_loop_over_all_indexes(shape: tuple[int, int], snake: bool, count: int) -> None:
    line, column = gridding.places(shape, count, snake=snake)
    expected = np.full(shape, np.nan)
    for index in range(count):
        row, at = divmod(index, shape[1])
        place = (row, shape[1] - 1 - at if snake and row % 2 else at)
        assert (line[index], column[index]) == place
        if row < shape[0]:
            expected[place] = index
    np.testing.assert_array_equal(gridding.by_order(np.arange(float(count)), shape, snake=snake), expected)


def test_a_line_has_places_too() -> None:
    line, column = gridding.places((5,), 4)
    np.testing.assert_array_equal([line, column], [[0] * 4, [0, 1, 2, 3]])


@given(st.integers(0, 10**6), st.integers(0, 300))
def test_bins_are_the_loop_over_all_points(seed: int, count: int) -> None:
    x, y, values, weights = scattered(seed, count)
    total, weight, outside = np.zeros(GRID.shape), np.zeros(GRID.shape), 0
    for at in range(count):
        far = [np.abs(GRID.x - x[at]) / GRID.x_step, np.abs(GRID.y - y[at]) / GRID.y_step]
        if not (far[0].min() <= 0.5 and far[1].min() <= 0.5):
            outside += 1
        elif np.isfinite(values[at] * weights[at]):
            cell = (np.argmin(far[1]), np.argmin(far[0]))
            total[cell] += values[at] * weights[at]
            weight[cell] += weights[at]
    found = gridding.binned(GRID, x, y, values, weights)
    np.testing.assert_allclose(found.total, total, atol=1e-12)
    np.testing.assert_allclose(found.weight, weight, atol=1e-12)
    assert found.outside == outside
    np.testing.assert_array_equal(np.isnan(found.mean()), weight == 0)


def test_bins_are_scipys() -> None:
    x, y, values, _ = scattered(5, 4000)
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(values)
    edges = [np.append(axis - step / 2, axis[-1] + step / 2) for axis, step in ((GRID.y, 0.25), (GRID.x, 0.5))]
    expected = binned_statistic_2d(y[good], x[good], values[good], "mean", bins=edges).statistic
    np.testing.assert_allclose(gridding.binned(GRID, x, y, values).mean(), expected, atol=1e-12)


@given(st.integers(0, 10**6), st.permutations(range(7)))
def test_parts_merge_in_any_order(seed: int, order: list[int]) -> None:
    arrays = scattered(seed, 211)
    parts = [gridding.binned(GRID, *(array[at::7] for array in arrays)) for at in range(7)]
    whole, merged = gridding.binned(GRID, *arrays), parts[order[0]]
    for at in order[1:]:
        merged = merged + parts[at]
    np.testing.assert_allclose(merged.mean(), whole.mean(), rtol=1e-12, atol=1e-12)
    assert merged.outside == whole.outside


def test_bins_of_other_grids_lengths_and_signs_are_refused() -> None:
    one = gridding.binned(GRID, *np.zeros((3, 2)))
    with pytest.raises(BadInput, match="different grids"):
        one + gridding.binned(gridding.Grid(0, 0, 1, 1, (2, 2)), *np.zeros((3, 2)))
    with pytest.raises(BadInput, match=r"same indexes, but there are \[2, 3\]"):
        gridding.binned(GRID, np.zeros(2), np.zeros(3), np.zeros(3))
    with pytest.raises(BadInput, match="not be negative"):
        gridding.binned(GRID, np.zeros(1), np.full(1, 2.0), np.zeros(1), np.full(1, -1.0))
    with pytest.raises(BadInput, match="steps other than 0"):
        gridding.Grid(0, 0, 0, 1, (2, 2))
    with pytest.raises(BadInput, match="no finite position"):
        gridding.grid_over(np.full(3, np.nan), np.zeros(3), 1.0, 1.0)


def test_a_grid_over_positions_has_a_cell_for_each() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5) * 0.2 - 15, np.arange(3) * 2.0))
    grid = gridding.grid_over(x, y, -0.2, 2.0)
    assert grid.shape == (3, 5)
    assert (gridding.binned(grid, x, y, x).weight == 1).all()


@given(st.integers(0, 10**6))
def test_nearest_fill_is_the_nearest_by_a_tree(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=(6, 9))
    values[random.random(values.shape) < 0.5] = np.nan
    filled, flag = gridding.nearest_fill(values, (2.0, 0.5))
    known = np.argwhere(np.isfinite(values))
    if len(known) in (0, values.size):
        assert not flag.any()
        return
    np.testing.assert_array_equal(flag, np.isnan(values))
    tree = cKDTree(known * [2.0, 0.5])
    for place in np.argwhere(flag):
        distance = tree.query(place * [2.0, 0.5])[0]
        near = known[tree.query_ball_point(place * [2.0, 0.5], distance + 1e-9)]
        assert filled[tuple(place)] in values[tuple(near.T)]
    np.testing.assert_array_equal(filled[~flag], values[~flag])


@given(st.floats(-89, 89), st.booleans())
def test_a_rotated_raster_is_found_again(degrees: float, snake: bool) -> None:
    line, column = gridding.places((4, 6), 24, snake=snake)
    x, y = gridding.rotated(column * 0.2 + 3.0, line * 2.0 - 1.0, degrees)
    x[5] = np.nan
    found = gridding.fit_lattice(x, y, line, column)
    assert np.degrees(np.arctan2(found.fast[1], found.fast[0])) == pytest.approx(degrees, abs=1e-8)
    assert np.hypot(*found.fast) == pytest.approx(0.2)
    assert np.hypot(*found.slow) == pytest.approx(2.0)
    assert found.rms < 1e-9


def test_a_raster_needs_two_lines_and_three_positions() -> None:
    with pytest.raises(BadInput, match="two lines"):
        gridding.fit_lattice(np.arange(5.0), np.zeros(5), np.zeros(5), np.arange(5))
    with pytest.raises(BadInput, match="needs three"):
        gridding.fit_lattice(np.full(5, np.nan), np.zeros(5), np.zeros(5), np.arange(5))


def test_bins_keep_what_a_cut_into_tasks_cannot_change() -> None:
    x, y, values, weights = scattered(9, 500)
    whole = gridding.binned(GRID, x, y, values, weights).mean()
    for tasks in (7, 50):
        cuts = np.linspace(0, 500, tasks + 1).astype(int)
        parts = [
            gridding.binned(GRID, *(array[low:high] for array in (x, y, values, weights)))
            for low, high in itertools.pairwise(cuts)
        ]
        np.testing.assert_allclose(sum(parts[1:], parts[0]).mean(), whole, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_lines_that_ran_back_and_forth_are_seen_in_the_positions(data: st.DataObject) -> None:
    """Rotated, noisy, with lost points, and not finished: it is what it was, or not known."""
    lines, width = data.draw(st.integers(2, 9)), data.draw(st.integers(3, 12))
    snake, degrees = data.draw(st.booleans()), data.draw(st.floats(0, 360))
    line, column = gridding.places((lines, width), lines * width, snake=snake)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    noise = data.draw(st.sampled_from([0.0, 0.05, 0.2]))
    pitch = data.draw(st.sampled_from([0.5, -2.0]))
    x, y = (one + noise * rng.normal(size=one.size) for one in gridding.rotated(pitch * column, 1.5 * line, degrees))
    x[rng.random(x.size) < data.draw(st.sampled_from([0.0, 0.2]))] = np.nan
    done = data.draw(st.integers(0, lines * width))
    seen = gridding.runs_back_and_forth(x[:done], y[:done], (lines, width))
    assert seen in (None, snake)
    if done == lines * width and noise < 0.1 and np.isfinite(x).all():
        assert seen is snake
    assert gridding.runs_back_and_forth(x, y, (lines * width,)) is None


def test_positions_that_do_not_move_along_the_lines_show_nothing() -> None:
    rng = np.random.default_rng(0)
    assert gridding.runs_back_and_forth(rng.normal(size=200), rng.normal(size=200), (20, 10)) is None
    assert gridding.runs_back_and_forth(np.full(20, np.nan), np.full(20, np.nan), (4, 5)) is None
    assert gridding.runs_back_and_forth(np.zeros(20), np.zeros(20), (4, 5)) is None
