"""Simulated scans of many kinds with a known answer: objects, optics, doses and errors of the positions, far and near field.

The simulation is its own: positions between pixels by a phase ramp on the probe, a Fresnel propagator written out here, counts by
Poisson. Objects are complex transmissions; lengths are object pixels unless told otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cluster_side.modalities.ptychography import quality
from cluster_side.modalities.ptychography.geometry import KEV_M

ENERGY, DISTANCE, DETECTOR_PIXEL = 8.0, 1.0, 75e-6
SOURCE = 0.01
Made = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was simulated: `name` is "object/probe", positions are measured in pixels (row, column), frames DC in the corner."""

    name: str
    sample: np.ndarray
    probe: np.ndarray
    positions: np.ndarray
    frames: np.ndarray
    pixel: float
    """In metres."""
    fresnel: float = 0.0

    def arrays(self) -> Made:
        """Return what a task would give to the kernel."""
        return {"frames": self.frames, "positions": self.positions * self.pixel}

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return settings that fit."""
        fixed = {"energy": ENERGY, "distance": DISTANCE, "detector_pixel": DETECTOR_PIXEL * 1e6, "centre": "corner"}
        if self.fresnel:
            energy = self.fresnel * KEV_M * (DISTANCE * SOURCE / (SOURCE + DISTANCE)) / self.pixel**2
            fixed |= {"source": SOURCE, "energy": energy}
        return {**fixed, "modes": 1, "device": "cpu", **more}

    def likeness(self, found: Made) -> float:
        """Return how much of the found object is the true one: 1 all, 0 nothing (see `likeness`)."""
        return likeness(*self.side_by_side(found))

    def lowest_ring(self, found: Made, most: float = 0.1) -> float:
        """Return the lowest correlation with the true object (means of three Fourier rings), up to `most` cycles per pixel."""
        one, other = (quality.without_ramp(np.asarray(part, complex))[0] for part in self.side_by_side(found))
        rings = quality.ring_correlation(one, quality.aligned(one, other))
        return float(np.convolve(rings.correlation, np.ones(3) / 3, "valid")[rings.frequency[1:-1] <= most].min())

    def side_by_side(self, found: Made) -> tuple[np.ndarray, np.ndarray]:
        """Return the true object and the found one, where that says that it lies, in the middle of the scan."""
        half = self.probe.shape[-1] / 2
        low, high = self.positions.min(axis=0) + half, self.positions.max(axis=0) + half
        side = int((high - low).min()) // 2 * 2
        first = np.rint((low + high - side) / 2).astype(int)
        true = self.sample[first[0] : first[0] + side, first[1] : first[1] + side]
        rows, columns = (
            np.interp((first[axis] + np.arange(side) - half) * self.pixel, *_rising(found[name], len(found[name])))
            for axis, name in enumerate(("object_y", "object_x"))
        )
        at = np.meshgrid(rows, columns, indexing="ij")
        parts = [ndimage.map_coordinates(part(found["object"]), at, order=1, mode="nearest") for part in (np.real, np.imag)]
        return true, parts[0] + 1j * parts[1]


def _rising(axis: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    return (axis, np.arange(length)) if axis[-1] > axis[0] else (axis[::-1], np.arange(length)[::-1])


def likeness(true: np.ndarray, found: np.ndarray, most: float = 0.1) -> float:
    """Return the correlation of two objects without their means, up to `most` cycles per pixel, ramp, shift and phase removed."""
    flat = [quality.without_ramp(np.asarray(one, complex))[0] for one in (true, found)]
    one, other = flat[0], quality.aligned(flat[0], flat[1])
    side = len(one)
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    low = (radius <= most) & (radius > 0.5 / side)
    spectra = [np.fft.fft2((part - (part * window).sum() / window.sum()) * window)[low] for part in (one, other)]
    return float((spectra[0] * spectra[1].conj()).sum().real / np.linalg.norm(spectra[0]) / np.linalg.norm(spectra[1]))


# ---- objects: functions of size, from a seed


def noise(size: int, seed: int, power: float = 0.8, highest: float = 0.35) -> np.ndarray:
    """Return smooth noise from 0 to 1 whose amplitude falls with frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    made = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) / (frequency + 0.01) ** power * (frequency < highest)).real
    return (made - made.min()) / np.ptp(made)


def _disc(size: int, centres: np.ndarray, radius: float) -> np.ndarray:
    nowhere = np.ones((size, size), bool)
    rows, columns = np.rint(centres).astype(int).T % size
    nowhere[rows, columns] = False
    return np.clip(radius + 0.5 - ndimage.distance_transform_edt(nowhere), 0, 1)


def star(size: int) -> np.ndarray:
    """Return a Siemens star of 1 rad."""
    y, x = np.mgrid[:size, :size] - size / 2 - 3.3
    return np.exp(1j / (1 + np.exp(-12 * np.sin(12 * np.arctan2(y, x)))))


def cells(size: int) -> np.ndarray:
    """Return sharp-edged cells, 1.5 rad, weakly absorbing."""
    made = noise(size, 2)
    made = 1 / (1 + np.exp(-30 * (made - np.median(made))))
    return (1 - 0.3 * made) * np.exp(1.5j * made)


def weak(size: int) -> np.ndarray:
    """Return a weak phase object: 0.3 rad in all."""
    return np.exp(0.3j * (noise(size, 3, 1.0, 0.2) - 0.5) * 2)


def absorber(size: int) -> np.ndarray:
    """Return a strong amplitude: 10 to 100 % transmission, hardly a phase."""
    made = 1 / (1 + np.exp(-25 * (noise(size, 4) - 0.5)))
    return (1 - 0.9 * made) * np.exp(0.1j * made)


def pillars(size: int) -> np.ndarray:
    """Return gold-like pillars, 2.5 rad and 40 % absorbing, on a lattice that is not quite regular."""
    rng = np.random.default_rng(5)
    lattice = np.array([(row, column) for row in range(4, size, 13) for column in range(4, size, 13)], float)
    made = _disc(size, lattice + rng.uniform(-2, 2, lattice.shape), 3.5)
    return (1 - 0.4 * made) * np.exp(-2.5j * made)


def gradient(size: int) -> np.ndarray:
    """Return a smooth landscape of several radians."""
    return np.exp(5j * noise(size, 6, 1.8, 0.12))


def grating(size: int) -> np.ndarray:
    """Return lines of 11 pixels' period with a fault here and there."""
    y, x = np.mgrid[:size, :size]
    lines = 1 / (1 + np.exp(-8 * np.sin(2 * np.pi * (0.92 * x + 0.39 * y) / 11)))
    faults = _disc(size, np.random.default_rng(7).uniform(0, size, (size // 6, 2)), 4)
    return np.exp(1.2j * lines * (1 - faults))


def dots(size: int) -> np.ndarray:
    """Return few small dots, strong, on nothing."""
    made = _disc(size, np.random.default_rng(8).uniform(0, size, (size * size // 250, 2)), 2.2)
    return (1 - 0.5 * made) * np.exp(1.8j * made)


def tissue(size: int) -> np.ndarray:
    """Return fibres: ridges of noise, 0.8 rad."""
    made = np.exp(-(((noise(size, 9, 1.2) - 0.5) / 0.04) ** 2)) + 0.6 * np.exp(-(((noise(size, 10, 1.2) - 0.5) / 0.03) ** 2))
    return (1 - 0.1 * made) * np.exp(0.8j * made)


def circuit(size: int) -> np.ndarray:
    """Return wires at right angles in two layers, 1 rad and absorbing."""
    rng, made = np.random.default_rng(11), np.zeros((size, size))
    for _ in range(size // 5):
        row, column, long = rng.integers(0, size, 3)
        wide = rng.integers(3, 7)
        made[row : row + wide, column : column + long // 2] += 0.5
        made[column : column + long // 2, row : row + wide] += 0.5
    made = ndimage.gaussian_filter(np.minimum(made, 1.5), 0.7)
    return (1 - 0.25 * made) * np.exp(1j * made)


# ---- probes: functions of the array's size


def _field(size: int, pupil: Callable[[np.ndarray, np.ndarray], np.ndarray], defocus: float) -> np.ndarray:
    """Return the probe of a pupil (in cycles per pixel), out of focus by `defocus` (pixel² of wavelength x distance)."""
    rows, columns = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    wave = pupil(rows, columns) * np.exp(-1j * np.pi * defocus * (rows**2 + columns**2))
    return np.fft.fftshift(np.fft.ifft2(wave))


def airy(size: int) -> np.ndarray:
    """Return a focus of a round pupil, a little out of focus."""
    return _field(size, lambda y, x: 1.0 / (1 + np.exp((np.hypot(y, x) - 0.11) * 200)), 30.0)


def gaussian(size: int) -> np.ndarray:
    """Return a curved Gaussian."""
    y, x = np.mgrid[:size, :size] - size / 2
    square = y * y + x * x
    return np.exp(-square / (size / 6) ** 2 + 1j * square / (size / 8) ** 2)


def zone_plate(size: int) -> np.ndarray:
    """Return a zone plate with a central stop, behind the focus."""
    return _field(size, lambda y, x: ((np.hypot(y, x) < 0.18) & (np.hypot(y, x) > 0.06)).astype(float), 60.0)


def before_focus(size: int) -> np.ndarray:
    """Return a zone plate with a central stop, before the focus."""
    return _field(size, lambda y, x: ((np.hypot(y, x) < 0.16) & (np.hypot(y, x) > 0.05)).astype(float), -65.0)


def mirrors(size: int) -> np.ndarray:
    """Return a rectangular pupil with coma and astigmatism: asymmetric."""

    def pupil(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        lit = 1 / (1 + np.exp((np.abs(y) - 0.14) * 150)) / (1 + np.exp((np.abs(x) - 0.09) * 150))
        return lit * np.exp(1j * (90 * (y * y - x * x) + 600 * y * (y * y + x * x)))

    return _field(size, pupil, 45.0)


def pinhole(size: int) -> np.ndarray:
    """Return a round hole, a little behind it."""
    y, x = np.mgrid[:size, :size] - size / 2
    hole = 1 / (1 + np.exp((np.hypot(y, x) - size / 5.5) * 2))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    return np.fft.ifft2(np.fft.fft2(hole) * np.exp(-1j * np.pi * 12 * frequency**2))


def diffuser(size: int) -> np.ndarray:
    """Return a beam as wide as the detector behind a diffuser: structured everywhere."""
    return (0.4 + noise(size, 12, 1.0, 0.25)) * np.exp(3j * noise(size, 13, 1.0, 0.2))


# ---- scans


def simulate(
    sample: Callable[[int], np.ndarray],
    probe: Callable[[int], np.ndarray],
    *,
    side: int = 10,
    size: int = 48,
    step: float = 5.0,
    photons: float = 1e5,
    jitter: float = 0.0,
    fresnel: float = 0.0,
    seed: int = 0,
) -> Sample:
    """Return a scan of side x side positions; they are reported with Gaussian errors of `jitter` pixels."""
    rng = np.random.default_rng(seed)
    grid = np.array([(row * step, column * step) for row in range(side) for column in range(side)])
    positions = grid + rng.uniform(-0.3 * step, 0.3 * step, grid.shape) + 0.3 * step + 4
    if fresnel:
        positions = np.rint(positions)
    whole = int(positions.max()) + size + 8
    truth, light = sample(whole), probe(size)
    light = light * np.sqrt(photons / (np.abs(light) ** 2).sum())
    square = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    kernel = np.exp(-1j * np.pi * square / fresnel) if fresnel else None
    frames = []
    for row, column in positions:
        at = int(np.rint(row)), int(np.rint(column))
        ramps = [np.exp(-2j * np.pi * np.fft.fftfreq(size) * by) for by in (row - at[0], column - at[1])]
        wave = np.fft.ifft2(np.fft.fft2(light) * np.outer(*ramps)) * truth[at[0] : at[0] + size, at[1] : at[1] + size]
        spectrum = np.fft.fft2(wave)
        frames.append(np.abs(np.fft.ifft2(spectrum * kernel)) ** 2 if fresnel else np.abs(spectrum) ** 2 / size**2)
    counts = rng.poisson(np.array(frames)).astype(np.int32)
    reported = positions + rng.normal(0, jitter, positions.shape) if jitter else positions
    pixel = DETECTOR_PIXEL * SOURCE / (SOURCE + DISTANCE) if fresnel else KEV_M / ENERGY * DISTANCE / (size * DETECTOR_PIXEL)
    return Sample(f"{sample.__name__}/{probe.__name__}", truth, light, reported, counts, pixel, fresnel)
