"""Non-negative least squares for many spectra with one model.

Theory: minimise |A x - y| with x >= 0 needs only the normal equations, gram = A'A and right = A'y. The unconstrained solution
of all spectra is one product; those with a negative value go on by block principal pivoting: the sets of positive ("passive")
parameters are exchanged until no condition of Karush, Kuhn and Tucker is broken, all broken ones at once while that helps, else
one at a time, which always ends. The first sets are those of the unconstrained solution, clipped, after one step down the
gradient: where lines do not overlap much, these are right for most spectra. In NumPy, spectra with equal sets share one inverse;
the compiled loop takes four at a time. Each of them is solved for its positive parameters, or, where the inverse of gram is good
enough and they are fewer, for those that are not.
Source: J. Kim and H. Park, SIAM J. Sci. Comput. 33 (2011) 3261.

Invariant: the solution of a spectrum depends on that spectrum alone.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native

Values = NDArray[np.float64]
Flags = NDArray[np.bool_]
TOLERANCE = 1e-11
"""A value counts as negative below this part of the largest value of its spectrum."""
WELL_CONDITIONED = 1e3
"""Up to this condition number of the scaled gram, going through its inverse costs no digit that matters."""
PATIENCE = 3
"""Full exchanges that may fail to help before single ones begin."""
GIVE_UP = 20
"""Single exchanges per parameter after which it stops: then rounding errors of similar lines keep it going."""


class _CProblem(ctypes.Structure):
    """`struct problem` of xrf.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("gram", "inverse", "scale", "free")),
        *((name, ctypes.c_long) for name in ("k", "through_inverse")),
    )


class Problem:
    """A model, ready to be solved for many spectra. Its columns are scaled to length 1, so units do not matter."""

    def __init__(self, gram: Values, free: Flags) -> None:
        """`gram` (parameter, parameter) is A'A; parameters that are `free` may be negative."""
        self._scale = 1.0 / np.sqrt(np.diag(gram))
        self._gram = gram * np.outer(self._scale, self._scale)
        self._inverse, self._free = np.linalg.inv(self._gram), free
        good = np.linalg.cond(self._gram) < WELL_CONDITIONED
        self._marks = free.astype(np.int8)
        self.spare = 4 * len(gram) * (len(gram) + 6)
        """How many doubles the compiled loop works in."""
        room: list[NDArray[Any]] = [np.empty(self.spare), np.empty(len(gram), dtype=np.int64)]
        arrays: list[NDArray[Any]] = [self._gram, self._inverse, self._scale, self._marks]
        self._given = _CProblem(*native.pointers(*arrays), len(gram), int(good))
        self._room, self._spare = room, native.pointers(*room)

    @property
    def address(self) -> ctypes.c_void_p:
        """Where the compiled loops find the problem; it lives as long as this object."""
        return ctypes.cast(ctypes.pointer(self._given), ctypes.c_void_p)

    def solve(self, right: Values) -> Values:
        """Return x (spectrum, parameter) for `right` = A'y (spectrum, parameter)."""
        library = native.library()
        if library is None:
            return self._plain(right)
        x = np.empty_like(right)
        library.nnls(ctypes.byref(self._given), *native.pointers(right, x), *self._spare, native.size(len(right)))
        return x

    def _plain(self, right: Values) -> Values:
        wanted, bound = right * self._scale, ~self._free
        solution: Values = wanted @ self._inverse
        open_rows = np.flatnonzero((solution < -_tolerance(wanted))[:, bound].any(axis=1))
        if open_rows.size:
            solution[open_rows] = by_sets(self._gram, wanted[open_rows], solution[open_rows], self._free)
        solution[:, bound] = np.maximum(solution[:, bound], 0.0)
        return np.asarray(solution * self._scale)


def by_sets(gram: Values, right: Values, start: Values, free: Flags) -> Values:
    """Return the non-negative solutions for all spectra at once; `start` holds the unconstrained ones."""
    clipped = np.where(free, start, np.maximum(start, 0.0))
    solution, passive = np.zeros_like(right), (clipped + right - clipped @ gram > 0) | free
    left = np.arange(len(right))
    fewest = np.full(len(right), gram.shape[0] + 1)
    lives = np.full(len(right), PATIENCE)
    while left.size:
        values = _solved(gram, right[left], passive[left])
        gradient = values @ gram - right[left]
        broken = np.where(passive[left], values, gradient) < -_tolerance(right[left])
        broken[:, free] = False
        count = broken.sum(axis=1)
        going = (count > 0) & (lives[left] > -GIVE_UP * gram.shape[0])
        solution[left[~going]] = values[~going]
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
