"""Difference map and RAAR: every exit wave is kept, and each iteration updates all of them at once.

One iteration with relaxation b, exit waves w, overlap projection O and Fourier projection F:

    w <- b (w + F(2 O(w) - w)) + (1 - 2 b) O(w)

which is the difference map for b = 1. Object and probe follow as the least-squares answer to the new waves, from one pass over
them: each rank adds up numerators and denominators, one sum over the ranks makes them whole, so the answer is that of one
process up to rounding.

Sources: Thibault et al., Ultramicroscopy 109 (2009) 338 (difference map); Luke, Inverse Problems 21 (2005) 37 (RAAR).
"""

from typing import Any

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.bounds import Bounds, bound_object, bound_probe
from cluster_side.modalities.ptychography.engines.fourier_constraint import compare
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, StateSums, blocks, corners

INERTIA = 1e-3
"""Weight of the old object and probe in the new ones, as a share of the largest denominator: keeps dark corners quiet."""


class Projection:
    """Difference map (relaxation 1) or RAAR on one rank's frames."""

    def __init__(self, bench: Bench, frames: Frames, state: ReconstructionState, relaxation: float) -> None:
        self._bench, self._frames, self._beta = bench, frames, relaxation
        xp, probe = bench.xp, state.probe
        self._all = blocks(slice(0, len(state.positions)), bench.block(probe))
        self._waves = xp.empty((len(state.positions), *probe.shape), dtype=probe.dtype)
        for part in self._all:
            parts = op.patches(xp, state.object, corners(state, part), probe.shape[-2:])
            self._waves[part, ...] = op.exit_waves(probe, parts)

    def iterate(self, state: ReconstructionState, limits: Bounds, *, fix_probe: bool = False) -> None:
        """Do one iteration; the error that it notes is that of the waves that were projected."""
        xp, everyone = self._bench.xp, slice(0, None)
        sums = StateSums.of(xp, state)
        for part in self._all:
            self._project(state, part, sums)
        op.add_everywhere(sums.coverage, corners(state, everyone), xp.sum(op.squared(xp, state.probe), axis=0))
        self._bench.team.add_up([sums.object, sums.coverage, sums.misfit])
        state.object = bound_object(xp, _weighted(xp, sums.object, sums.coverage, state.object), limits)
        state.coverage = sums.coverage
        state.errors.append(float(sums.misfit[0]) / self._frames.power)
        if not fix_probe:
            self._follow(state, sums, limits)

    def _follow(self, state: ReconstructionState, sums: StateSums, limits: Bounds) -> None:
        """Update the probe after the object: updating both at once would correct the same misfit twice, and diverge."""
        xp, shape = self._bench.xp, state.probe.shape[-2:]
        for part in self._all:
            parts = op.patches(xp, state.object, corners(state, part), shape)
            sums.probe += op.onto_probe(xp, parts, self._waves[part, ...])
        sums.object_power += op.object_power(op.squared(xp, state.object), corners(state, slice(0, None)), shape)
        self._bench.team.add_up([sums.probe, sums.object_power])
        state.probe = bound_probe(xp, _weighted(xp, sums.probe, sums.object_power, state.probe), limits)

    def _project(self, state: ReconstructionState, part: slice, sums: StateSums) -> None:
        xp, probe, beta = self._bench.xp, state.probe, self._beta
        at = corners(state, part)
        parts = op.patches(xp, state.object, at, probe.shape[-2:])
        waves, overlap = self._waves[part, ...], op.exit_waves(probe, parts)
        mirrored = overlap + overlap
        mirrored -= waves
        mirrored = self._bench.propagator.forward(mirrored)
        factor, misfit = compare(self._bench, self._frames, state, part, mirrored)
        sums.misfit += misfit
        factor *= beta / self._bench.propagator.gain
        mirrored *= factor
        moved = self._bench.propagator.backward(mirrored)
        if beta != 1.0:
            waves *= beta
            overlap *= 2 * beta - 1
        waves += moved
        waves -= overlap
        op.add_patches(sums.object, at, op.onto_object(xp, probe, waves))


def _weighted(xp: Any, numerator: Array, denominator: Array, old: Array) -> Array:
    inertia = INERTIA * xp.max(denominator)
    return (numerator + inertia * old) / (denominator + inertia)
