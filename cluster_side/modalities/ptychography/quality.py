"""The quality of a reconstruction: phase ramps removed, two reconstructions aligned, Fourier ring correlation.

Everything runs on the host in double precision, once per scan. An object is known up to a factor, a phase ramp and a shift, so
these are removed before two objects are compared.

Sources: van Heel & Schatz, J. Struct. Biol. 151 (2005) 250 (the half-bit curve); Guizar-Sicairos et al., Opt. Lett. 33 (2008)
156 (registration by a matrix Fourier transform).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complexfloating[Any, Any]]
Real = NDArray[np.float64]
SHARE = 5 / 6
"""Side of the square that is compared between halves, as a share of the scanned area."""


@dataclass(frozen=True, slots=True)
class RingCorrelation:
    """Correlation by spatial frequency (cycles per pixel), the half-bit curve, and where they cross first."""

    frequency: Real
    correlation: Real
    half_bit: Real

    @property
    def crossing(self) -> float:
        """The spatial frequency (cycles per pixel) up to which the objects agree; 0.5 when they agree everywhere."""
        below = np.flatnonzero(self.correlation[1:] < self.half_bit[1:]) + 1
        if not below.size:
            return 0.5
        last = int(below[0])
        above = self.correlation - self.half_bit
        share = above[last - 1] / (above[last - 1] - above[last]) if last > 1 else 0.0
        return float(self.frequency[last - 1] + share * (self.frequency[last] - self.frequency[last - 1]))


def covered(whole: Complex, pixels: Real, probe_shape: tuple[int, int]) -> Complex:
    """Return the largest square that is compared, in the middle of what the centres of the probe covered; `pixels` (n, 2)."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    side = 2 * max(8, int(SHARE * float((high - low).min()) / 2))
    middle = (low + high + np.asarray(probe_shape)) / 2
    rows, columns = (slice(int(at) - side // 2, int(at) + side // 2) for at in middle)
    return whole[rows, columns]


def ramp_of(whole: Complex, weight: Real | None = None) -> tuple[float, float]:
    """Return the mean phase gradient (radian per pixel; rows, columns), weighted with |object|² and `weight`."""
    weights = np.ones(whole.shape) if weight is None else weight
    slopes = []
    for axis in (0, 1):
        here, there = (np.take(whole, range(first, whole.shape[axis] - 1 + first), axis) for first in (0, 1))
        share = np.take(weights, range(whole.shape[axis] - 1), axis)
        slopes.append(float(np.angle(np.sum(np.conj(here) * there * share))))
    return slopes[0], slopes[1]


def ramp(shape: tuple[int, int], slopes: tuple[float, float]) -> Complex:
    """Return exp(i (slope · pixel)), pixel (0, 0) being 1."""
    rows, columns = (np.exp(1j * slope * np.arange(length)) for slope, length in zip(slopes, shape, strict=True))
    return np.asarray(rows[:, None] * columns[None, :])


def without_ramp(whole: Complex, weight: Real | None = None) -> tuple[Complex, tuple[float, float]]:
    """Return the object without its mean phase gradient and mean phase, and the gradient that was taken out."""
    slopes = ramp_of(whole, weight)
    flat = whole * np.conj(ramp((whole.shape[0], whole.shape[1]), slopes))
    mean = np.sum(flat if weight is None else flat * weight)
    return flat * np.exp(-1j * np.angle(mean)), slopes


def shift_between(one: Complex, other: Complex, precision: int = 50) -> tuple[float, float]:
    """Return by how many pixels (rows, columns) `other` must be moved to lie on `one`, to 1 / precision of a pixel."""
    product = np.fft.fft2(one) * np.conj(np.fft.fft2(other))
    peak = np.unravel_index(int(np.argmax(np.abs(np.fft.ifft2(product)))), one.shape)
    coarse = [float(at - length if at > length // 2 else at) for at, length in zip(peak, one.shape, strict=True)]
    fine = np.arange(-1.5 * precision, 1.5 * precision + 1) / precision
    kernels = [
        np.exp(2j * np.pi * np.outer(start + fine, np.fft.fftfreq(length)))
        for start, length in zip(coarse, one.shape, strict=True)
    ]
    zoomed = np.abs(kernels[0] @ product @ kernels[1].T)
    row, column = np.unravel_index(int(np.argmax(zoomed)), zoomed.shape)
    return coarse[0] + float(fine[row]), coarse[1] + float(fine[column])


def shifted(whole: Complex, by: tuple[float, float]) -> Complex:
    """Return an array moved by a fraction of pixels, by its Fourier transform (edges wrap)."""
    rows, columns = (np.exp(-2j * np.pi * np.fft.fftfreq(length) * step) for length, step in zip(whole.shape, by, strict=True))
    return np.asarray(np.fft.ifft2(np.fft.fft2(whole) * rows[:, None] * columns[None, :]))


def aligned(one: Complex, other: Complex, rounds: int = 3) -> Complex:
    """Return `other` moved, turned in phase and freed of its relative ramp so that it lies on `one`."""
    shape = one.shape[0], one.shape[1]
    for _ in range(rounds):
        other = shifted(other, shift_between(one, other))
        other = other * np.conj(ramp(shape, ramp_of(other * np.conj(one))))
        other = other * np.exp(-1j * np.angle(np.sum(other * np.conj(one))))
    return other


def ring_correlation(one: Complex, other: Complex) -> RingCorrelation:
    """Return the Fourier ring correlation of two aligned, square objects, through a Hann window."""
    size = one.shape[0]
    window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    first, last = (np.fft.fft2(whole * window) for whole in (one, other))
    radius = np.rint(size * np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))).astype(int)

    def rings(values: Real) -> Real:
        return np.asarray(np.bincount(radius.ravel(), values.ravel())[: size // 2], np.float64)

    count = rings(np.ones_like(window))
    both = rings((first * np.conj(last)).real)
    norm = np.sqrt(rings(np.abs(first) ** 2) * rings(np.abs(last) ** 2))
    root = np.sqrt(count)
    half_bit = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    return RingCorrelation(np.arange(size // 2) / size, both / norm, half_bit)


def low_correlation(one: Complex, other: Complex, highest: float) -> float:
    """Return the correlation of two aligned, square objects without their means, up to `highest` cycles per pixel."""
    size = one.shape[0]
    window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij"))
    low = (radius <= highest) & (radius > 0.5 / size)
    first, last = (np.fft.fft2((whole - (whole * window).sum() / window.sum()) * window)[low] for whole in (one, other))
    return float((first * np.conj(last)).sum().real / max(float(np.linalg.norm(first) * np.linalg.norm(last)), 1e-30))
