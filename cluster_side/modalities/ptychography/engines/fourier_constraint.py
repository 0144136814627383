"""The Fourier constraint: compares computed waves with their frames at the detector, and updates flux and background."""

from dataclasses import dataclass

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState

DAMPING = 0.5
"""How far flux and background move towards what one iteration says."""


@dataclass(slots=True)
class LearnedIntensities:
    """What one iteration says about flux and background; None: not asked for."""

    flux: Array | None = None
    background: Array | None = None


def compare(  # noqa: PLR0913, PLR0917  what belongs to one comparison
    bench: Bench, frames: Frames, state: ReconstructionState, part: slice, waves: Array, learned: LearnedIntensities | None = None
) -> tuple[Array, Array]:
    """Return by what to multiply the waves of these positions (positions, 1, h, w), and their misfit before that.

    The flux of an exposure scales what is measured, so that all exposures are explained by one probe.
    """
    xp = bench.xp
    modelled = op.binned(xp, op.intensity(xp, waves), frames.binning)
    measured = frames.amplitudes[part, ...]
    if learned is not None and learned.background is not None:
        learned.background += xp.sum(measured * measured - modelled, axis=0)
    if state.background is not None:
        modelled = modelled + state.background
    if learned is not None and learned.flux is not None:
        learned.flux[part] = op.brightness(xp, modelled, measured, frames.good)
    if state.flux is not None:
        measured = measured / state.flux[part][:, None, None]
    factor, misfit = op.modulus(xp, modelled, measured, frames.good)
    return op.spread_out(xp, factor, frames.binning)[:, None, :, :], misfit


def ask(bench: Bench, state: ReconstructionState) -> LearnedIntensities:
    """Return where one iteration notes what it says about the flux and background that the state has."""
    xp = bench.xp
    flux = None if state.flux is None else xp.ones(state.flux.shape, dtype=xp.float32)
    return LearnedIntensities(flux, None if state.background is None else xp.zeros(state.background.shape, dtype=xp.float32))


def learn(bench: Bench, frames: Frames, state: ReconstructionState, learned: LearnedIntensities) -> None:
    """Move flux (mean intensity 1) and background (never negative) towards what was learned."""
    xp = bench.xp
    if learned.flux is not None:
        flux = state.flux + DAMPING * (xp.clip(learned.flux, 0.2, 5.0) - state.flux)
        square = xp.zeros((1,), dtype=xp.float32)
        square += xp.sum(flux * flux)
        bench.team.add_up([square])
        state.flux = flux / xp.sqrt(square / frames.total)
    if learned.background is not None:
        bench.team.add_up([learned.background])
        wanted = xp.maximum(learned.background / frames.total, xp.asarray(0.0, dtype=xp.float32))
        state.background = state.background + DAMPING * (wanted - state.background)
