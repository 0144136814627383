"""Non-negative least squares for many spectra with one model.

Theory: minimise |A x - y| with x >= 0 needs only the normal equations, gram = A'A and right = A'y. The unconstrained solution
of all spectra is one product; those with a negative value go on by block principal pivoting: the sets of positive ("passive")
parameters are exchanged until no condition of Karush, Kuhn and Tucker is broken, all broken ones at once while that helps, else
one at a time, which always ends. In NumPy, spectra with equal sets share one inverse; the compiled loop takes them one by one.
Source: J. Kim and H. Park, SIAM J. Sci. Comput. 33 (2011) 3261.

Invariant: the solution of a spectrum depends on that spectrum alone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
TOLERANCE = 1e-11
"""A value counts as negative below this part of the largest value of its spectrum."""
PATIENCE = 3
"""Full exchanges that may fail to help before single ones begin."""


def solve(gram: Values, right: Values, free: Flags) -> Values:
    """Return x (spectrum, parameter) for `gram` (parameter, parameter) and `right` (spectrum, parameter).

    Parameters that are `free` may be negative. The columns are scaled to length 1, so units do not matter.
    """
    scale = 1.0 / np.sqrt(np.diag(gram))
    scaled, wanted = gram * np.outer(scale, scale), right * scale
    solution: Values = wanted @ np.linalg.inv(scaled)
    open_rows = np.flatnonzero((solution < -_tolerance(wanted))[:, ~free].any(axis=1))
    if open_rows.size:
        solution[open_rows] = _pivoted(scaled, wanted[open_rows], solution[open_rows], free)
    solution[:, ~free] = np.maximum(solution[:, ~free], 0.0)
    return np.asarray(solution * scale)


def _pivoted(gram: Values, right: Values, start: Values, free: Flags) -> Values:
    """Return the non-negative solutions; `start` holds the unconstrained ones."""
    library = native.library()
    if library is None:
        return by_sets(gram, right, start, free)
    size = len(gram)
    spare = np.empty(size * size + size), np.empty(2 * size, dtype=np.int64), np.empty(size, dtype=np.int8)
    arrays: list[NDArray[Any]] = [gram, right, free.astype(np.int8), start, *spare]
    library.pivot(*map(native.pointer, arrays), *map(native.size, right.shape))
    return start


def by_sets(gram: Values, right: Values, start: Values, free: Flags) -> Values:
    """Return the same, in NumPy, for all spectra at once."""
    solution, passive = np.zeros_like(right), (start > 0) | free
    left = np.arange(len(right))
    fewest = np.full(len(right), gram.shape[0] + 1)
    lives = np.full(len(right), PATIENCE)
    while left.size:
        values = _solved(gram, right[left], passive[left])
        gradient = values @ gram - right[left]
        broken = np.where(passive[left], values, gradient) < -_tolerance(right[left])
        broken[:, free] = False
        count = broken.sum(axis=1)
        solution[left[count == 0]] = values[count == 0]
        going = count > 0
        left, broken, count = left[going], broken[going], count[going]
        helps = count < fewest[left]
        lives[left] = np.where(helps, PATIENCE, lives[left] - 1)
        fewest[left] = np.minimum(fewest[left], count)
        single = lives[left] < 0
        broken[single] = _last_only(broken[single])
        passive[left] ^= broken
    return solution


def _solved(gram: Values, right: Values, passive: Flags) -> Values:
    """Solve each row with its own passive set; equal sets share one inverse."""
    sets, which = np.unique(np.packbits(passive, axis=1), axis=0, return_inverse=True)
    chosen = np.unpackbits(sets, axis=1, count=gram.shape[0]).astype(bool)
    both = chosen[:, :, None] & chosen[:, None, :]
    inverse = np.linalg.inv(np.where(both, gram, np.eye(gram.shape[0])))
    return np.asarray(np.matmul(np.where(passive, right, 0.0)[:, None, :], inverse[which.ravel()])[:, 0])


def _last_only(broken: Flags) -> Flags:
    last = broken.shape[1] - 1 - np.argmax(broken[:, ::-1], axis=1)
    alone = np.zeros_like(broken)
    alone[np.arange(len(broken)), last] = True
    return alone


def _tolerance(right: Values) -> Values:
    return np.asarray(TOLERANCE * np.abs(right).max(axis=1, initial=0.0)[:, None])
