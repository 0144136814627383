"""Position correction: each position follows the misfit of its own frame.

A wave that was measured d pixels away from where it was computed differs from it by the probe times the object's slope times d,
so d is the least-squares answer of two slopes to the correction c that the measurement asks for:

    [<Sr, Sr> <Sr, Sc>; <Sr, Sc> <Sc, Sc>] d = [<c, Sr>, <c, Sc>],   S = probe x slope of the object

Invariants: a position never leaves the bound around where it was measured, and moves at most one pixel at once; the mean
displacement of the scan is zero, because object and positions may be moved together without any frame noticing.

Source: Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26 (2018) 3108, section 3.5.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.state import Bench, ReconstructionState

LONGEST_STEP = 1.0


def displacements(bench: Bench, probe: Array, parts: Array, corrections: Array) -> NDArray[np.float64]:
    """Return how far (positions, 2) from where it was computed each frame says that it was measured, in pixels."""
    xp, mode, asked = bench.xp, probe[..., 0, :, :], corrections[:, 0, ...]
    rows, columns = (mode * op.slope(xp, parts, axis) for axis in (-2, -1))
    sums = [(rows, rows), (columns, columns), (rows, columns), (asked, rows), (asked, columns)]
    first, last, both, one, other = (_host(bench, op.inner(xp, *pair)) for pair in sums)
    determinant = first * last - both * both
    safe = determinant > 1e-6 * first * last
    found = np.stack([one * last - other * both, other * first - one * both], axis=1)
    found /= np.where(safe, determinant, 1.0)[:, None]
    found[~safe] = 0.0
    return np.asarray(np.clip(found, -LONGEST_STEP, LONGEST_STEP))


def move(bench: Bench, state: ReconstructionState, steps: Any, total: int, bound: float) -> None:
    """Move the positions of this rank, within `bound` pixels of the measured ones, without a mean displacement."""
    steps = np.clip(steps, -LONGEST_STEP, LONGEST_STEP)
    away = np.clip(state.positions + steps - state.start, -bound, bound)
    mean = bench.xp.asarray(away.sum(axis=0))
    bench.team.add_up([mean])
    state.positions = state.start + away - _host(bench, mean) / total


def _host(bench: Bench, values: Any) -> NDArray[np.float64]:
    return np.asarray(bench.backend.to_host(values), dtype=np.float64)
