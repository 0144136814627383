"""Simulated ptychography with a known answer: sharp-edged cells of 1.5 rad, a curved Gaussian probe, Poisson counts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.engines.propagators import far_field, near_field
from cluster_side.modalities.ptychography.geometry import KEV_M

ENERGY, DISTANCE, DETECTOR_PIXEL = 8.0, 1.0, 75e-6


@dataclass(frozen=True, slots=True)
class Truth:
    """What was simulated. Positions: object pixels of the probe's pixel (0, 0). Frames: zero frequency in the corner."""

    sample: np.ndarray
    probe: np.ndarray
    positions: np.ndarray
    measured: np.ndarray
    frames: np.ndarray

    @property
    def pixel(self) -> float:
        """In metres, for the geometry above."""
        return KEV_M / ENERGY * DISTANCE / (self.frames.shape[-1] * DETECTOR_PIXEL)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a task would give to the kernel."""
        return {"frames": self.frames, "positions": self.measured * self.pixel}

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return settings that fit."""
        fixed = {"energy": ENERGY, "distance": DISTANCE, "detector_pixel": DETECTOR_PIXEL * 1e6, "centre": "corner"}
        return {**fixed, "modes": 1, **more}

    def start(self) -> np.ndarray:
        """Return a probe (h, w) that is wrong in size and curvature: what an engine starts from."""
        return curved_gaussian(self.frames.shape[-1], 5.0, 7.0)


def cells(size: int, seed: int) -> np.ndarray:
    """Return values from 0 to 1 with edges: smoothed noise through a steep threshold."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / (frequency + 0.01) ** 0.8 * (frequency < 0.35)).real
    noise = (noise - noise.min()) / np.ptp(noise)
    return 1 / (1 + np.exp(-30 * (noise - np.median(noise))))


def curved_gaussian(size: int, width: float, curvature: float) -> np.ndarray:
    """Return a Gaussian of 1/e radius size / width with a quadratic phase."""
    y, x = np.mgrid[:size, :size] - size / 2
    square = y * y + x * x
    return np.exp(-square / (size / width) ** 2 + 1j * square / (size / curvature) ** 2)


def simulate(
    side: int = 10,
    size: int = 64,
    step: float = 7.3,
    modes: int = 1,
    photons: float = 1e5,
    wrong: float = 0.0,
    fresnel: float = 0.0,
) -> Truth:
    """Return a scan of side x side positions; `wrong`: positions are reported up to so many pixels off; `fresnel`: near field."""
    rng = np.random.default_rng(0)
    grid = np.array([(row * step, column * step) for row in range(side) for column in range(side)])
    positions = grid + rng.uniform(-2, 2, grid.shape) + 6
    whole = int(positions.max()) + size + 10
    if fresnel:
        positions = np.rint(positions)  # the detector stands still behind the probe: a near field knows no probe between pixels
    texture = cells(whole, 2)
    truth = (1 - 0.3 * texture) * np.exp(1.5j * texture)
    first = curved_gaussian(size, 6.0, 8.0)
    y, x = (np.mgrid[:size, :size] - size / 2) / (size / 6)
    probe = np.array([first, 0.6 * first * x, 0.6 * first * y][:modes])
    probe *= np.sqrt(photons / (np.abs(probe) ** 2).sum())
    backend = numpy_backend()
    propagator = near_field(backend, (size, size), (fresnel, fresnel)) if fresnel else far_field(backend, (size, size))
    frames = []
    for row, column in positions:
        corner = int(np.rint(row)), int(np.rint(column))
        waves = (
            moved(probe, (row - corner[0], column - corner[1]))
            * truth[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
        )
        waves = propagator.forward(waves.astype(np.complex64))
        frames.append((np.abs(waves) ** 2).sum(axis=0) / propagator.gain)
    counts = rng.poisson(np.array(frames)).astype(np.int32)
    return Truth(truth, probe, positions, positions + rng.uniform(-wrong, wrong, positions.shape), counts)


def moved(probe: np.ndarray, by: tuple[float, float]) -> np.ndarray:
    """Return a probe moved by a fraction of a pixel."""
    rows, columns = (
        np.exp(-2j * np.pi * np.fft.fftfreq(length) * step) for length, step in zip(probe.shape[-2:], by, strict=True)
    )
    return np.fft.ifft2(np.fft.fft2(probe) * rows[:, None] * columns[None, :])
