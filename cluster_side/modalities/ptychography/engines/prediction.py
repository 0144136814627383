"""What object and probe say of frames that they were not made of, and how far that is from what was measured.

Misfits are sums of (modelled - measured amplitude)² over the good pixels of one frame, in units of counts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography.engines import operators as op
from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, blocks, corners
from cluster_side.modalities.ptychography.engines.subpixel import moved, ramps, spectrum_of

Misfits = NDArray[np.float64]


def misfits(bench: Bench, frames: Frames, state: ReconstructionState, *, between: bool) -> Misfits:
    """Return the misfit of each frame of this rank (own positions,); `between`: probes stand between pixels."""
    xp, found = bench.xp, np.empty(len(state.positions))
    spectrum = spectrum_of(bench, state.probe) if between else None
    for part in blocks(slice(0, len(found)), bench.block(state.probe)):
        at, shape, probe = corners(state, part), state.probe.shape[-2:], state.probe
        if spectrum is not None:
            probe = moved(bench, spectrum, ramps(bench, state.positions[part] - np.asarray(at), shape))
        waves = bench.propagator.forward(op.exit_waves(probe, op.patches(xp, state.object, at, shape)))
        modelled = op.binned(xp, op.intensity(xp, waves), frames.binning)
        if state.background is not None:
            modelled = modelled + state.background
        root, measured = xp.sqrt(modelled), frames.amplitudes[part, ...]
        if state.flux is not None:  # that of a frame that was not used is not known: the one that fits best
            root = root * op.brightness(xp, modelled, measured, frames.good)[:, None, None]
        found[part] = _summed(bench, root - measured, frames.good)
    return found / bench.propagator.gain


def mean_of(bench: Bench, frames: Frames) -> Array:
    """Return the mean amplitudes (h, w) of these frames, over all ranks."""
    mean = bench.xp.zeros(frames.amplitudes.shape[1:], dtype=bench.xp.float32)
    mean += bench.xp.sum(frames.amplitudes, axis=0)
    bench.team.add_up([mean])
    return mean / frames.total


def misfits_of_mean(bench: Bench, frames: Frames, state: ReconstructionState, mean: Array) -> Misfits:
    """Return what the misfits are for who knows only mean amplitudes (h, w)."""
    found = np.empty(len(state.positions))
    for part in blocks(slice(0, len(found)), bench.block(state.probe)):
        measured, modelled = frames.amplitudes[part, ...], mean[None, ...]
        if state.flux is not None:
            modelled = modelled * op.brightness(bench.xp, modelled * modelled, measured, frames.good)[:, None, None]
        found[part] = _summed(bench, modelled - measured, frames.good)
    return found / bench.propagator.gain


def _summed(bench: Bench, difference: Array, good: Array | None) -> NDArray[Any]:
    if good is not None:
        difference = difference * good
    return np.asarray(bench.backend.to_host(bench.xp.sum(difference * difference, axis=(1, 2))), np.float64)
