"""Probes between pixels: each position's own probe is the common one, moved by the fraction that rounding left over.

A move is a phase ramp on the probe's transform, exact for a probe that fits into its array; what the probe learns is moved back
the same way. It costs two transforms per wave, so engines do it only where positions are refined or it is asked for.
"""

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography.engines.backend import Array
from cluster_side.modalities.ptychography.engines.state import Bench


def ramps(bench: Bench, fractions: NDArray[np.float64], shape: tuple[int, int]) -> Array:
    """Return the phase ramps (positions, 1, h, w) that move by `fractions` (positions, 2) pixels."""
    rows, columns = (
        bench.backend.array(np.exp(-2j * np.pi * fractions[:, axis, None] * np.fft.fftfreq(length)))
        for axis, length in enumerate(shape)
    )
    return rows[:, None, :, None] * columns[:, None, None, :]


def moved(bench: Bench, spectrum: Array, ramp: Array) -> Array:
    """Return the probes (positions, modes, h, w) of a probe's transform (modes, h, w) under these ramps."""
    probes = bench.backend.ifft2(spectrum[None, ...] * ramp)
    probes /= float(np.prod(spectrum.shape[-2:]))
    return probes


def spectrum_of(bench: Bench, probe: Array) -> Array:
    """Return the probe's transform; the probe stays as it is."""
    return bench.backend.fft2(probe + 0)


def learned_by_probe(bench: Bench, parts: Array, waves: Array, ramp: Array) -> Array:
    """Return conj(object) wave, moved back and summed over the positions (modes, h, w)."""
    xp = bench.xp
    spectra = bench.backend.fft2(xp.conj(parts)[:, None, :, :] * waves)
    spectra *= xp.conj(ramp)
    total = bench.backend.ifft2(xp.sum(spectra, axis=0))
    return total / float(np.prod(parts.shape[-2:]))
