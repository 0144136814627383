"""The content of a result file: plain values, no service and no file.

Invariants: rows of a dataset are at their acquisition index; rows without a result are NaN (0 for integers); per-scan
datasets are merged as their headers say, wide enough (64 bit) that a sum does not overflow or lose digits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_side.writers.maps import Positions
from beamtide.errors import BadInput
from beamtide.machine import Arrays
from beamtide.merge import merge_parts
from beamtide.messages.metadata import ScanState, SettingsDocument
from beamtide.messages.results import DatasetHeader, Hole, Product, StoreRequest

Array = NDArray[Any]
Batch = tuple[StoreRequest, Arrays]


@dataclass(frozen=True, slots=True)
class Content:
    """A product with its settings, scan and positions; its results are read one by one."""

    product: Product
    modality: str
    scan: ScanState
    results: Iterable[Batch]
    positions: Positions | None = None
    document: SettingsDocument | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Calibration files: name -> content."""
    corrections: int = 0
    """How many corrections it contains."""
    positions_settings: str = ""
    """The settings of the pipeline that the positions came from."""


def batches(results: tuple[StoreRequest, ...], arrays: Arrays) -> list[Batch]:
    """Return each result with its own arrays (on the wire they are named "<position>/<dataset>")."""
    own: list[dict[str, Array]] = [{} for _ in results]
    for key, array in arrays.items():
        position, _, name = key.partition("/")
        own[int(position)][name] = array
    return list(zip(results, own, strict=True))


def rows_of(request: StoreRequest, header: DatasetHeader, arrays: Arrays) -> Array:
    """Return the array of one dataset; BadInput when it does not have one row per index of its task."""
    array = np.asarray(arrays[header.name])
    expected = request.task.stop - request.task.start
    if header.per == "index" and (array.ndim == 0 or len(array) != expected):
        raise BadInput(
            f"dataset {header.name!r} of task {request.task.id} has shape {array.shape}, but the task has {expected} indexes: "
            "its modality must return one row per index, or declare the dataset per scan."
        )
    return array


def merged(before: Array | None, header: DatasetHeader, after: Array) -> Array:
    """Return a per-scan dataset with one more partial result."""
    if before is not None and header.merge in ("sum", "max") and before.shape != after.shape:
        raise BadInput(f"dataset {header.name!r} had shape {before.shape}, and now {after.shape}: it cannot be merged.")
    return merge_parts(header, [after] if before is None else [before, after])


def holes_of(request: StoreRequest) -> tuple[Hole, ...]:
    """Return the holes that a verdict leaves: all of it without a result, or what of a result could not be read."""
    if request.outcome == "result":
        return request.holes
    return (Hole(start=request.task.start, stop=request.task.stop, reason=request.reason or request.outcome),)


def joined(holes: Iterable[Hole]) -> list[Hole]:
    """Return holes in order, neighbours with the same reason as one."""
    out: list[Hole] = []
    for hole in sorted(holes, key=lambda hole: hole.start):
        if out and out[-1].stop == hole.start and out[-1].reason == hole.reason:
            out[-1] = Hole(start=out[-1].start, stop=hole.stop, reason=hole.reason)
        else:
            out.append(hole)
    return out
