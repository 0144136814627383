"""Assigns rows to indexes by trigger number: where a trigger was lost, its index has no value. Pure.

A device counts the triggers it got; row k belongs to index number[k] - first. Values of lost triggers are NaN, also in columns of
integers; images and spectra of integers have no NaN and get 0. Numbers that decrease are refused: the device was restarted during
the scan, and the exposure of its rows is unknown.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput

Columns = dict[str, NDArray[Any]]


def indexes(numbers: NDArray[Any], first: int, where: str) -> NDArray[np.int64]:
    """Return the index of each row; BadInput (naming `where`): numbers are not whole, decrease, repeat, or start too low."""
    values = np.asarray(numbers, float)
    if values.ndim != 1 or not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise BadInput(f"{where}: trigger numbers must be whole numbers, one per row; correct options.trigger")
    back = np.flatnonzero(np.diff(values) <= 0)
    if back.size:
        row = int(back[0]) + 1
        raise BadInput(
            f"{where}: trigger numbers go from {values[row - 1]:.0f} to {values[row]:.0f} at row {row}; the device was "
            "restarted, or options.trigger names another column"
        )
    if values.size and values[0] < first:
        raise BadInput(f"{where}: the first trigger number is {values[0]:.0f}, below options.first_trigger = {first}")
    return values.astype(np.int64) - first


def spread(columns: Mapping[str, NDArray[Any]], index: NDArray[np.int64], start: int, stop: int) -> Columns:
    """Return columns for the indexes `start <= i < stop`; row k goes to `index[k]`, which lies between the two."""
    found: Columns = {}
    for name, rows in columns.items():
        lost = index.size < stop - start and rows.ndim == 1
        dtype = np.dtype(np.float64) if lost and rows.dtype.kind in "iu" else rows.dtype
        full = np.full((stop - start, *rows.shape[1:]), np.nan if dtype.kind in "fc" else 0, dtype)
        full[index - start] = rows
        found[name] = full
    return found


def first_of(options: Mapping[str, str], path: object) -> int:
    """Return the number of the first trigger of a scan (`first_trigger`, 1 if it is not given)."""
    text = options.get("first_trigger", "1")
    if not text.removeprefix("-").isdecimal():
        raise BadInput(f"{path}: options.first_trigger is {text!r}; expected a whole number")
    return int(text)
