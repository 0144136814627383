"""Merges the partial results of several tasks into one: the only place that does this.

Rows are put in index order; sums and maxima are taken in index order too, in 64 bits, so that a result does not depend on the
order of arrival, and depends on how a scan was cut into tasks only by the rounding of float64.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.messages.results import DatasetHeader


def merge_parts(header: DatasetHeader, parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Merge the parts of a dataset, given in index order, holding one at a time. ValueError when there are none."""
    rest = iter(parts)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"{header.name}: nothing to merge")
    if header.merge == "first":
        return first
    if header.merge == "rows":
        return np.concatenate([np.array(part) for part in itertools.chain([first], rest)])
    total = np.array(first, dtype=wide(first.dtype) if header.merge == "sum" else None)
    for part in rest:
        (np.add if header.merge == "sum" else np.maximum)(total, part, out=total)
    return total


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which sums of a dtype are taken: 64 bits of the same kind."""
    return np.result_type(dtype, {"u": np.uint64, "i": np.int64, "b": np.int64, "f": np.float64, "c": np.complex128}[dtype.kind])


def blank(shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of holes: NaN, or 0 for integers."""
    return np.full(tuple(shape), np.nan if dtype.kind in "fc" else 0, dtype)
