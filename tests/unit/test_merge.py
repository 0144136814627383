"""Merging: what comes out does not depend on how a scan was cut, and holes look like holes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from beamtide.merge import blank, merge_parts, wide
from beamtide.messages.results import DatasetHeader, Merge


def header(merge: Merge) -> DatasetHeader:
    return DatasetHeader(name="spectrum", units="counts", per="scan", merge=merge)


def pieces(values: NDArray[Any], cuts: list[int]) -> list[NDArray[Any]]:
    return [part for part in np.split(values, sorted(cut for cut in cuts if cut < len(values))) if len(part)]


@settings(max_examples=40)
@given(
    values=st.lists(st.integers(0, 255), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
    dtype=st.sampled_from(["u1", "<i2", "<u4", "<i8", "?"]),
)
def test_whole_numbers_do_not_depend_on_the_cut(values: list[int], cuts: list[int], dtype: str) -> None:
    rows = np.array(values).astype(dtype)
    parts = pieces(rows, cuts)
    assert merge_parts(header("rows"), parts).tobytes() == rows.tobytes()
    assert merge_parts(header("max"), [part.max(axis=0) for part in parts]) == rows.max()
    total = merge_parts(header("sum"), [np.array(part.sum(dtype=wide(part.dtype))) for part in parts])
    assert total == rows.sum(dtype=wide(rows.dtype))
    assert total.dtype.itemsize == 8


@settings(max_examples=40)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
)
def test_sums_of_single_precision_are_taken_in_double(values: list[float], cuts: list[int]) -> None:
    rows = np.array(values, np.float32)
    total = merge_parts(header("sum"), list(rows))
    assert total.dtype == np.float64
    assert total == pytest.approx(np.sum(rows, dtype=np.float64), rel=1e-12, abs=1e-6)
    again = merge_parts(header("sum"), [np.array(part.sum(dtype=np.float64)) for part in pieces(rows, cuts)])
    assert again == pytest.approx(total, rel=1e-12, abs=1e-6)


def test_many_small_numbers_do_not_run_over() -> None:
    assert merge_parts(header("sum"), [np.array([200, 1], np.uint8)] * 100).tolist() == [20_000, 100]


def test_the_first_stays_and_parts_are_never_changed() -> None:
    parts = [np.array([1.0, 5.0]), np.array([2.0, 3.0])]
    for part in parts:
        part.flags.writeable = False  # as they come from the disk
    assert merge_parts(header("first"), parts).tolist() == [1.0, 5.0]
    assert merge_parts(header("max"), parts).tolist() == [2.0, 5.0]
    assert merge_parts(header("sum"), parts).tolist() == [3.0, 8.0]
    assert [part.tolist() for part in parts] == [[1.0, 5.0], [2.0, 3.0]]


def test_a_maximum_with_nan_is_nan_and_says_so() -> None:
    assert np.isnan(merge_parts(header("max"), [np.array([np.nan]), np.array([1.0])])).all()


def test_one_part_is_read_at_a_time() -> None:
    alive = 0
    most = 0

    class Part(np.ndarray[Any, Any]):
        """An array that says when it dies."""

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def parts() -> Any:
        nonlocal alive, most
        for _ in range(50):
            alive += 1
            most = max(most, alive)
            yield np.ones(3).view(Part)

    merge_parts(header("sum"), parts())
    assert most <= 4


def test_nothing_to_merge_is_said() -> None:
    with pytest.raises(ValueError, match="spectrum: nothing to merge"):
        merge_parts(header("sum"), [])


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<c8"])
def test_holes_are_nan(dtype: DTypeLike) -> None:
    assert np.isnan(blank((2, 3), np.dtype(dtype))).all()


@pytest.mark.parametrize("dtype", ["u1", "<i4", "?"])
def test_holes_of_whole_numbers_are_zero(dtype: DTypeLike) -> None:
    values = blank((2, 3), np.dtype(dtype))
    assert values.dtype == np.dtype(dtype)
    assert not values.any()
