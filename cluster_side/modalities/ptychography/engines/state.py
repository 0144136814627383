"""The state of the engines: the frames of one rank, and the present object, probe and positions.

Positions (n, 2) are in object pixels, (row, column) of the probe's pixel (0, 0), float64; the object pixel under it is the
rounded position. The order of a scan's frames is one fixed shuffle: the i-th of it belongs to rank i modulo size, and batch k of
a stage is a range of it, so that batches are spread over the sample and do not depend on the number of ranks. Part of a scan
(half of it, or what has a position) keeps order and owners, so a rank needs no other frames for it than for the whole.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.context import Team
from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array, Backend
from cluster_side.modalities.ptychography.engines.operators import Corners
from cluster_side.modalities.ptychography.engines.propagators import Propagator

SEED = 1


@dataclass(slots=True)
class Frames:
    """The frames of this rank, ready to compute with."""

    amplitudes: Array
    """(own positions, h, w): square roots of counts, times the square root of the propagator's gain."""
    good: Array | None
    """(h, w), 1 where the detector is valid, 0 elsewhere; None: everywhere."""
    power: float
    """Sum of amplitudes² over good pixels and all ranks."""
    members: "Members"
    """Which positions they are, among those of all ranks."""
    binning: int = 1
    """Pixels of the computed wave per detector pixel, each way."""

    @property
    def total(self) -> int:
        """Positions of all ranks."""
        return len(self.members.before) - 1


@dataclass(slots=True)
class ReconstructionState:
    """Object, probe and what else is refined."""

    object: Array
    probe: Array
    positions: NDArray[np.float64]
    """Of this rank (own positions, 2)."""
    start: NDArray[np.float64]
    """The positions as they were measured."""
    flux: Array | None = None
    """(own positions,): square root of each exposure's intensity relative to the mean; None: all alike."""
    background: Array | None = None
    """(h, w): counts without a sample, in the units of amplitudes²."""
    errors: list[float] = field(default_factory=list)
    coverage: Array | None = None
    """Sum of the probe's intensity over the object, from the last overlap."""


@dataclass(slots=True)
class StateSums:
    """Numerators and denominators of the least-squares object and probe, and the misfit: all that ranks have to add up."""

    object: Array
    coverage: Array
    probe: Array
    object_power: Array
    misfit: Array

    @classmethod
    def of(cls, xp: Any, state: ReconstructionState) -> "StateSums":
        """Return zeros."""
        shape, real = state.object.shape, xp.float32
        whole, probe = xp.zeros(shape, dtype=xp.complex64), xp.zeros(state.probe.shape, dtype=xp.complex64)
        coverage, power = xp.zeros(shape, dtype=real), xp.zeros(state.probe.shape[-2:], dtype=real)
        return cls(whole, coverage, probe, power, xp.zeros((1,), dtype=xp.float64))

    def cover(self, xp: Any, state: ReconstructionState, which: slice) -> None:
        """Add the probe's intensity, at these positions, to the coverage, and the object's to the object power."""
        at, shape = corners(state, which), state.probe.shape[-2:]
        op.add_everywhere(self.coverage, at, xp.sum(op.squared(xp, state.probe), axis=0))
        self.object_power += op.object_power(op.squared(xp, state.object), at, shape)

    def arrays(self) -> list[Array]:
        """Return what is to be added up over the ranks."""
        return [self.object, self.coverage, self.probe, self.object_power, self.misfit]


@dataclass(frozen=True, slots=True)
class Bench:
    """What an engine works with."""

    backend: Backend
    propagator: Propagator
    team: Team

    @property
    def xp(self) -> Any:
        """The array module."""
        return self.backend.xp

    def block(self, probe: Array) -> int:
        """Return how many positions are worked on at once."""
        return max(1, self.backend.block_bytes // (8 * int(np.prod(probe.shape))))


def corners_of(positions: NDArray[np.float64], margin: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the object pixel under each probe's corner; `margin` is the last one that leaves the probe inside."""
    nearest = np.rint(positions).astype(int)
    kept = np.clip(nearest, 0, np.asarray(margin))
    return [(int(row), int(column)) for row, column in kept]


def corners(state: ReconstructionState, which: slice) -> Corners:
    """Return the corners of some of this rank's positions."""
    height, width = state.probe.shape[-2:]
    rows, columns = state.object.shape
    return corners_of(state.positions[which], (rows - height, columns - width))


@dataclass(frozen=True, slots=True)
class Members:
    """A rank's part of some positions of a scan."""

    own: NDArray[np.int64]
    """Their indexes in the scan, in the order in which this rank keeps them."""
    before: NDArray[np.int64]
    """How many of the first k positions of all ranks are ours, k from 0 on."""

    def batches(self, length: int) -> list[slice]:
        """Return, for each batch of all positions, the slice of ours that is in it."""
        total = len(self.before) - 1
        edges = [*range(0, total, length), total]
        return [slice(int(self.before[first]), int(self.before[last])) for first, last in itertools.pairwise(edges)]


def members(which: NDArray[np.int64], frames: int, rank: int, size: int) -> Members:
    """Return which of these indexes of a scan with so many frames belong to a rank."""
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(frames)
    chosen, ours = np.isin(order, which), np.arange(frames) % size == rank
    return Members(order[chosen & ours], np.concatenate([[0], np.cumsum(ours[chosen])]))


def blocks(which: slice, length: int) -> list[slice]:
    """Cut a slice into blocks of at most so many positions."""
    return [slice(first, min(which.stop, first + length)) for first in range(which.start, which.stop, length)]
