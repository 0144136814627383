"""Gridding: every index lands where it was measured, and axes are regular."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamline_side.writers import maps
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from tests.writer_scans import positions, state_of

SNAKE = state_of(snake=True).scan
PLAIN = state_of(snake=False).scan


def test_grid_turns_every_second_line_of_a_snake() -> None:
    values = maps.grid(np.arange(24.0), SNAKE)
    assert values[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert values[1].tolist() == [11, 10, 9, 8, 7, 6]
    assert maps.grid(np.arange(24.0), PLAIN)[1].tolist() == [6, 7, 8, 9, 10, 11]


def test_what_was_not_measured_is_nan_and_surplus_is_left_out() -> None:
    assert np.isnan(maps.grid(np.arange(20.0), PLAIN)[3, 2:]).all()
    assert maps.grid(np.arange(30, dtype="u2"), PLAIN).max() == 23


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.booleans(),
    st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True).map(sorted),
)
def test_lines_written_one_by_one_give_the_same_grid(rows: int, columns: int, snake: bool, cuts: list[int]) -> None:
    scan = Scan(id=ScanId("s"), shape=(rows, columns), snake=snake)
    values = np.full((rows, columns), np.nan)
    everything = np.full(31, np.nan)
    for start, stop in itertools.pairwise(cuts):
        everything[start:stop] = np.arange(start, stop)
        for which, where in maps.line_slices(scan, start, stop):
            values[where] = np.arange(start, stop)[which]
    np.testing.assert_array_equal(values, maps.grid(everything, scan))


def test_axes_are_lines_through_the_measured_positions() -> None:
    y, x = maps.axes_of(SNAKE, positions())
    assert (y.name, x.name) == ("y", "x")
    assert x.step == pytest.approx(0.5, abs=0.02)
    assert y.values[0] == pytest.approx(-3.0, abs=0.05)
    assert np.ptp(np.diff(x.values)) < 1e-12
    assert x.measured is not None
    assert x.measured.shape == (4, 6)


def test_axes_are_swapped_when_y_is_the_fast_one() -> None:
    there = positions()
    slow, fast = maps.axes_of(SNAKE, maps.Positions(there.y, there.x))
    assert (slow.name, fast.name) == ("x", "y")


def test_positions_with_holes_still_give_a_grid() -> None:
    there = positions()
    there.x[6:12] = np.nan
    there.y[6:12] = np.nan
    y, x = maps.axes_of(SNAKE, there)
    assert np.isfinite(y.values).all()
    assert x.step == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_without_a_motion_the_axes_count_pixels(value: float) -> None:
    axes = maps.axes_of(SNAKE, maps.Positions(np.full(24, value), np.full(24, value)))
    assert [axis.values.tolist() for axis in axes] == [list(range(4)), list(range(6))]
    assert {axis.units for axis in axes} == {"1"}
    assert maps.axes_of(SNAKE, None)[1].name == "column"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("ran", [True, False])
def test_measured_positions_say_how_the_lines_ran(told: bool, ran: bool) -> None:
    scan = state_of(snake=told).scan
    assert maps.as_measured(scan, positions(snake=ran)).snake is ran
    assert maps.as_measured(scan, None).snake is told


@pytest.mark.parametrize("said", [True, False, None])
def test_a_pipeline_file_says_how_the_lines_ran(said: bool | None) -> None:
    state = state_of(snake=True)
    found = maps.as_told(state, said)
    assert found is not None
    assert found.scan.snake is (True if said is None else said)
    assert maps.as_told(None, said) is None
