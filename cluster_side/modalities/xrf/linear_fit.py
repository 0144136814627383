"""The fit of spectra without background: areas, their variances and the residuals, by one compiled loop (xrf_fit.c).

Theory: areas x minimise sum_i w_i (y_i - (A x)_i)^2 with areas >= 0 and continuum terms free, by `nnls`. The estimate without
bounds is linear in y, x = S y with S = (A'WA)^-1 A'W, so the counts' variances v give sigma_j^2 = sum_i S_ji^2 v_i.
chi2 = sum_i (y - A x)_i^2 / max(v_i, 1).

A line group is zero in most channels, so only blocks of channels where it is not are multiplied: on the map of the benchmark a
fifth of the dense product. Areas are found in double, variances and residuals in single precision. Without a compiler the dense
products give the same numbers.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities import native
from cluster_side.modalities.xrf import nnls

Array = NDArray[Any]
Values = NDArray[np.float64]
Spectra = NDArray[np.float32]
Flags = NDArray[np.bool_]
TAIL = 1e-10
"""Values of a template below this part of its largest value count as zero: a Gaussian beyond 6.8 sigma, less than a count in a
channel beside a peak of 10^10."""
NEGLIGIBLE = 1e-5
"""Values of S below this part of its largest value are left out: even with a contrast of 10^5 between channels that changes a
standard uncertainty by less than 10^-3 of itself."""
TOGETHER, FOUR, BLOCK = 8, 4, 16
"""Spectra and channels that xrf_fit.c takes at once; of a table it multiplies `native.LINE` bytes at once."""
Found = tuple[Values, Values, Values]


def trimmed(templates: NDArray[np.floating[Any]], small: float) -> Values:
    """Return templates (channel, parameter) without what is below that part of their largest value."""
    return np.where(np.abs(templates) > small * np.abs(templates).max(axis=0), templates, 0.0).astype(np.float64)


class LinearFit:
    """The fit of one model."""

    def __init__(self, templates: Values, weights: Values, free: Flags) -> None:
        """`templates` (channel, parameter), `weights` (channel); parameters that are `free` may be negative."""
        weighted = templates * weights[:, None]
        gram = templates.T @ weighted
        estimator = trimmed(np.linalg.solve(gram, weighted.T).T, NEGLIGIBLE)
        self._problem = nnls.Problem(gram, free)
        self._weighted, self._shapes = weighted, templates.astype(np.float32)
        self._squares = np.square(estimator).astype(np.float32)
        self._compiled = _Compiled(self._problem, (self._weighted, self._squares, self._shapes))

    def fit(self, net: Spectra, variance: Spectra) -> Found:
        """Return the parameters, the variances of their estimates (spectrum, parameter) and chi2 (spectrum).

        `net` and `variance` (spectrum, channel): counts without background, and the variance of each count.
        """
        if (library := native.library()) is not None:
            return self._compiled.run(library, net, variance)
        found = self.parameters(net)
        left = net - found.astype(np.float32) @ self._shapes.T
        chi2 = (np.square(left) / np.maximum(variance, 1.0)).sum(axis=1, dtype=np.float64)
        return found, (variance @ self._squares).astype(np.float64), chi2

    def parameters(self, net: Spectra) -> Values:
        """Return the parameters alone."""
        if (library := native.library()) is not None:
            return self._compiled.run(library, net, None)[0]
        return self._problem.solve(net.astype(np.float64) @ self._weighted)


class _CSparseTable(ctypes.Structure):
    """`struct table` of xrf_fit.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("entries", "first", "which"))


class _CModel(ctypes.Structure):
    """`struct model` of xrf_fit.c."""

    _fields_ = (
        *((name, _CSparseTable) for name in ("weighted", "squares", "shapes")),
        ("problem", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("channels", "padded")),
    )


class _Compiled:
    """The arguments of xrf_fit.c: the tables in blocks, and work memory."""

    def __init__(self, problem: nnls.Problem, dense: tuple[Array, Array, Array]) -> None:
        channels, self._count = dense[0].shape
        padded = -(-channels // BLOCK) * BLOCK
        self._kept: list[Array] = []
        tables = [_by_parameter(dense[0], padded), _by_parameter(dense[1], padded), _by_block(dense[2], padded)]
        self._model = _CModel(*(_CSparseTable(*self._pointers(table)) for table in tables), problem.address, channels, padded)
        sizes = TOGETHER * padded, TOGETHER * self._count
        room = [native.room(sizes[0], kind) for kind in (np.float64, np.float32, np.float32)]
        room += [native.room(sizes[1], np.float64) for _ in range(2)]
        room += [native.room(problem.spare, np.float64), native.room(FOUR * self._count, np.float32)]
        self._buffers = (ctypes.c_void_p * 8)(*self._pointers([*room, native.room(self._count, np.int64)]))

    def run(self, library: ctypes.CDLL, net: Spectra, variance: Spectra | None) -> Found:
        both = native.rows(net), None if variance is None else native.rows(variance)
        shape = len(net), self._count
        found = np.empty(shape), np.empty(shape), np.empty(len(net))
        starts = (None if rows is None else ctypes.c_void_p(rows.ctypes.data) for rows in both)
        strides = (0 if rows is None else rows.strides[0] // rows.itemsize for rows in both)
        given = ctypes.byref(self._model), self._buffers, *starts, *native.pointers(*found)
        library.fit(*given, *map(native.size, (*strides, len(net))))
        return found

    def _pointers(self, arrays: list[Array]) -> list[ctypes.c_void_p]:
        self._kept += arrays
        return native.pointers(*arrays)


def _by_parameter(dense: Array, padded: int) -> list[Array]:
    """Return the entries of a table, parameter by parameter: which are of each parameter, and at which channel each begins."""
    blocks, used = _blocks(dense, padded)
    which, block = np.nonzero(used.T)
    first = np.searchsorted(which, np.arange(dense.shape[1] + 1))
    return [_entries(blocks[block, which]), first.astype(np.int64), block.astype(np.int64) * (native.LINE // dense.itemsize)]


def _by_block(dense: Array, padded: int) -> list[Array]:
    """Return the entries of a table, block by block: which are of each block, and of which parameter each is."""
    blocks, used = _blocks(dense, padded)
    block, which = np.nonzero(used)
    first = np.searchsorted(block, np.arange(len(blocks) + 1))
    return [_entries(blocks[block, which]), first.astype(np.int64), which.astype(np.int64)]


def _blocks(dense: Array, padded: int) -> tuple[Array, Flags]:
    """Return a table as (block, parameter, channel of the block), and which blocks are not zero."""
    filled = np.zeros((padded, dense.shape[1]), dense.dtype)
    filled[: len(dense)] = dense
    blocks = filled.reshape(-1, native.LINE // dense.itemsize, dense.shape[1]).transpose(0, 2, 1)
    return blocks, np.asarray(blocks.any(axis=2))


def _entries(blocks: Array) -> Array:
    room = native.room(blocks.shape, blocks.dtype)
    room[...] = blocks
    return room
