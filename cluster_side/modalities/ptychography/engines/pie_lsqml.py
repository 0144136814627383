"""ePIE, rPIE and LSQ-ML: object and probe follow the misfit of one batch of positions after the other.

Both sum, over the batch, conj(probe) c and conj(object) c of the corrections c that the measurement asks for, and divide by what
covers each pixel. They differ in the denominator and in the step:

    PIE     step 1; denominator (1 - a) coverage + a max(coverage): rPIE, and ePIE for a = 1
    LSQ-ML  denominator coverage + d max(coverage); the two steps are the least-squares answer of the whole batch

For the steps, all sums but one follow from arrays of the size of object and probe: |P dO_j|² summed over j is |dO|² times the
coverage, and Re <c_j, P dO_j> is Re <numerator, dO>. Only the mixed term needs another look at the positions.

Sources: Maiden, Johnson & Li, Optica 4 (2017) 736; Odstrcil, Menzel & Guizar-Sicairos, Opt. Express 26 (2018) 3108.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.bounds import Bounds, bound_object, bound_probe
from cluster_side.modalities.ptychography.engines.fourier_constraint import LearnedIntensities, ask, compare, learn
from cluster_side.modalities.ptychography.engines.position_correction import displacements, move
from cluster_side.modalities.ptychography.engines.state import (
    SEED,
    Bench,
    Frames,
    ReconstructionState,
    StateSums,
    blocks,
    corners,
)
from cluster_side.modalities.ptychography.engines.subpixel import learned_by_probe, moved, ramps, spectrum_of

FLOOR = 0.1
"""d: what LSQ-ML adds to a denominator, as a share of its maximum; with 0.02 a near field diverges even from the solution."""

MOMENTUM = 0.8
"""Share of its last step that a position keeps: object and probe adapt to wrong positions, so each step is too small."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a batch moves object and probe."""

    kind: Literal["pie", "lsq"]
    batch: int
    softness: float = 1.0
    """a of PIE."""
    move_after: int | None = None
    """Positions follow their frames from this iteration of the stage on; None: never."""
    bound: float = 0.0
    """How far (pixels) a position may move in all."""
    subpixel: bool = False
    """Whether probes stand between pixels; they do so where positions move."""


class Batched:
    """ePIE, rPIE or LSQ-ML on one rank's frames."""

    def __init__(self, bench: Bench, frames: Frames, rule: Rule) -> None:
        self._bench, self._frames, self._rule = bench, frames, rule
        self._batches = frames.members.batches(rule.batch)
        self._order = np.random.Generator(np.random.PCG64(SEED))
        self._done = 0
        self._drive: NDArray[np.float64] | float = 0.0
        self._between = rule.subpixel or rule.move_after is not None

    def iterate(self, state: ReconstructionState, limits: Bounds, *, fix_probe: bool = False) -> None:
        """Take every batch once, in a new order; note the error that each had before its turn."""
        learned = ask(self._bench, state)
        moving = self._rule.move_after is not None and self._done >= self._rule.move_after
        asked = np.zeros(state.positions.shape) if moving else None
        misfit = 0.0
        for number in self._order.permutation(len(self._batches)):
            sums = self._sum(state, self._batches[number], learned, asked)
            self._step(state, self._batches[number], sums, limits, fix_probe=fix_probe)
            misfit += float(sums.misfit[0])
        learn(self._bench, self._frames, state, learned)
        if asked is not None:
            self._drive = MOMENTUM * self._drive + asked
            move(self._bench, state, self._drive, self._frames.total, self._rule.bound)
        state.errors.append(misfit / self._frames.power)
        self._done += 1

    def _sum(
        self, state: ReconstructionState, batch: slice, learned: LearnedIntensities, asked: NDArray[np.float64] | None
    ) -> StateSums:
        """Return the sums of one batch over all ranks."""
        xp = self._bench.xp
        sums = StateSums.of(xp, state)
        spectrum = spectrum_of(self._bench, state.probe) if self._between else None
        for part in blocks(batch, self._bench.block(state.probe)):
            probes, ramp = self._probes(state, part, spectrum)
            parts, corrections = self._correct(state, part, (probes, ramp), sums, learned)
            if asked is not None:
                asked[part] = displacements(self._bench, probes, parts, corrections)
        sums.cover(xp, state, batch)
        self._bench.team.add_up(sums.arrays())
        return sums

    def _probes(self, state: ReconstructionState, part: slice, spectrum: Array | None) -> tuple[Array, Array | None]:
        """Return the probe, or each position's own probe and the ramp that made it."""
        if spectrum is None:
            return state.probe, None
        fractions = state.positions[part] - np.asarray(corners(state, part))
        ramp = ramps(self._bench, fractions, state.probe.shape[-2:])
        return moved(self._bench, spectrum, ramp), ramp

    def _step(self, state: ReconstructionState, batch: slice, sums: StateSums, limits: Bounds, *, fix_probe: bool) -> None:
        xp = self._bench.xp
        towards = self._divided(sums.object, sums.coverage), self._divided(sums.probe, sums.object_power)
        steps = 1.0, 1.0
        if self._rule.kind == "lsq":
            steps = self._steps(state, batch, sums, towards, fix_probe=fix_probe)
        state.object = bound_object(xp, state.object + steps[0] * towards[0], limits)
        if not fix_probe:
            state.probe = bound_probe(xp, state.probe + steps[1] * towards[1], limits)

    def _correct(
        self,
        state: ReconstructionState,
        part: slice,
        light: tuple[Array, Array | None],
        sums: StateSums,
        learned: LearnedIntensities,
    ) -> tuple[Array, Array]:
        """Add what the measurement asks for at some positions to the numerators; return object parts and corrections."""
        xp, propagator, (probe, ramp) = self._bench.xp, self._bench.propagator, light
        at = corners(state, part)
        parts = op.patches(xp, state.object, at, state.probe.shape[-2:])
        waves = propagator.forward(op.exit_waves(probe, parts))
        factor, misfit = compare(self._bench, self._frames, state, part, waves, learned)
        factor -= 1
        factor /= propagator.gain
        waves *= factor
        waves = propagator.backward(waves)
        op.add_patches(sums.object, at, op.onto_object(xp, probe, waves))
        sums.probe += op.onto_probe(xp, parts, waves) if ramp is None else learned_by_probe(self._bench, parts, waves, ramp)
        sums.misfit += misfit
        return parts, waves

    def _divided(self, numerator: Array, denominator: Array) -> Array:
        highest, soft = self._bench.xp.max(denominator), self._rule.softness
        if self._rule.kind == "lsq":
            return numerator / (denominator + FLOOR * highest)
        return numerator / ((1 - soft) * denominator + soft * highest)

    def _steps(
        self, state: ReconstructionState, batch: slice, sums: StateSums, towards: tuple[Array, Array], *, fix_probe: bool
    ) -> tuple[float, float]:
        """Return the two steps that leave the least of the corrections unexplained."""
        xp = self._bench.xp
        ours, theirs = towards
        object_asks, object_costs = _real(xp, sums.object, ours), float(xp.sum(op.squared(xp, ours) * sums.coverage))
        if fix_probe:
            return object_asks / (object_costs + op.TINY), 0.0
        probe_asks = _real(xp, sums.probe, theirs)
        probe_costs = float(xp.sum(op.squared(xp, theirs) * sums.object_power))
        mixed = xp.zeros(state.probe.shape[-2:], dtype=xp.complex64)
        shape = state.probe.shape[-2:]
        for part in blocks(batch, self._bench.block(state.probe)):
            at = corners(state, part)
            moved, parts = op.patches(xp, ours, at, shape), op.patches(xp, state.object, at, shape)
            mixed += xp.sum(xp.conj(moved) * parts, axis=0)
        self._bench.team.add_up([mixed])
        both = _real(xp, xp.conj(mixed) * state.probe, theirs)
        return _solve((object_costs, both, probe_costs), (object_asks, probe_asks))


def _solve(costs: tuple[float, float, float], asks: tuple[float, float]) -> tuple[float, float]:
    (first, both, last), (one, other) = costs, asks
    determinant = first * last - both * both
    if determinant <= 1e-6 * first * last:
        return 0.5, 0.5
    return (one * last - other * both) / determinant, (other * first - one * both) / determinant


def _real(xp: Any, one: Array, other: Array) -> float:
    return float(xp.sum(xp.real(xp.conj(one) * other)))
