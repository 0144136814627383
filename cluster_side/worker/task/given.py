"""The inputs of a task, of which some frames may not be readable: the kernel gets the others, and the result names the missing.

Theory: kernels look at each frame by itself, or at those that are there (as in a scan that ended early), so a frame that cannot
be read costs its own index. Its row is NaN, or 0 where a dataset holds integers, and a hole of the result says why.
Invariant: arrays have one row for each index in `rows`, which rise; every other index of the task lies in a hole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Missing
from beamtide.formats.lazy import Chosen, LazyFrames, unreadable
from beamtide.machine import Arrays
from beamtide.messages.results import Hole
from cluster_side.modalities.base import Output, find_output
from cluster_side.modalities.context import ALONE, Team, all_lost

Frames = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """The arrays of a task, and to which of its indexes (from 0) their rows belong."""

    arrays: dict[str, Any]
    rows: NDArray[np.int64]
    count: int
    """How many indexes the task has."""
    lost: tuple[Missing, ...] = field(default=())
    """The indexes, from 0, that are missing."""

    def without(self, missing: tuple[Missing, ...], team: Team = ALONE.team) -> "Given":
        """Return it without some rows, and without all others that cannot be read; BadInput if none is left.

        The ranks of a team try a share of them each, and find the same.
        """
        mine = tuple(one for array in self.arrays.values() for one in unreadable(array, team.rank, team.size))
        known = [*missing, *all_lost(team, mine)]
        keep = np.ones(len(self.rows), np.bool_)
        why: dict[int, str] = {}
        for one in known:
            keep[one.first : one.last] = False
            why |= {int(row): one.why for row in self.rows[one.first : one.last] if int(row) not in why}
        if keep.all():
            raise BadInput(missing[0].why)
        lost = (*self.lost, *(Missing(row, row + 1, reason) for row, reason in sorted(why.items())))
        if not keep.any():
            raise BadInput(lost[0].why)
        return Given(
            {name: chosen(array, np.flatnonzero(keep)) for name, array in self.arrays.items()}, self.rows[keep], self.count, lost
        )

    def spread(self, outputs: Arrays, declared: tuple[Output, ...]) -> Arrays:
        """Return a kernel's outputs with a row for every index of the task."""
        if len(self.rows) == self.count:
            return outputs
        per_index = {name for name in outputs if _per_index(name, declared)}
        return {**outputs, **{name: _spread(outputs[name], self.rows, self.count) for name in per_index}}

    def holes(self, start: int) -> tuple[Hole, ...]:
        """Return the holes in the result of a task that begins at an index; neighbours with one reason are one."""
        found: list[Hole] = []
        for one in sorted(self.lost, key=lambda one: one.first):
            if found and found[-1].stop == start + one.first and found[-1].reason == one.why:
                found[-1] = Hole(start=found[-1].start, stop=start + one.last, reason=one.why)
            else:
                found.append(Hole(start=start + one.first, stop=start + one.last, reason=one.why))
        return tuple(found)


def chosen(array: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows of an array, or of frames that are not read yet."""
    return Chosen(array, rows) if isinstance(array, LazyFrames) else array[rows]


def _per_index(name: str, declared: tuple[Output, ...]) -> bool:
    try:
        return find_output(declared, name).per == "index"
    except KeyError:  # told when the outputs are checked
        return False


def _spread(array: NDArray[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
    whole = np.full((count, *array.shape[1:]), np.nan if array.dtype.kind in "fc" else 0, array.dtype)
    whole[rows] = array
    return whole
