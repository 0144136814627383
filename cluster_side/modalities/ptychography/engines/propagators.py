"""Propagators from exit wave to detector: far field (one transform) or near field (Fresnel, in the effective geometry).

A propagator is a pair of functions with one number, its gain: both are unitary but for that factor, so
|forward(w)|² sums to gain |w|², and backward(forward(w)) = gain w.

Source: Paganin, Coherent X-Ray Optics (2006), section 1.3; the Fresnel scaling theorem for the effective geometry.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cluster_side.modalities.ptychography.engines.backend import Array, Backend


@dataclass(frozen=True, slots=True)
class Propagator:
    """Sample to detector and back; both may overwrite what they are given."""

    forward: Callable[[Array], Array]
    backward: Callable[[Array], Array]
    gain: float


def far_field(backend: Backend, shape: tuple[int, int]) -> Propagator:
    """Return the Fraunhofer propagator: one Fourier transform."""
    return Propagator(backend.fft2, backend.ifft2, float(shape[0] * shape[1]))


def near_field(backend: Backend, shape: tuple[int, int], fresnel_numbers: tuple[float, float]) -> Propagator:
    """Return the Fresnel propagator; a Fresnel number is pixel² / (wavelength x effective distance), rows and columns."""
    rows, columns = (np.fft.fftfreq(length) ** 2 for length in shape)
    phase = -np.pi * (rows[:, None] / fresnel_numbers[0] + columns[None, :] / fresnel_numbers[1])
    kernel = backend.array(np.exp(1j * phase))
    back = backend.xp.conj(kernel)

    def through(waves: Array, filtered: Array) -> Array:
        spectrum = backend.fft2(waves)
        spectrum *= filtered
        return backend.ifft2(spectrum)

    size = float(shape[0] * shape[1])
    return Propagator(lambda waves: through(waves, kernel), lambda waves: through(waves, back), size * size)
