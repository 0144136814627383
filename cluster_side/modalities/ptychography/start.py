"""A first probe for those who know nothing of it: how far from focus the sample is, found by trying.

The mean frame shows how bright the pupil is, but not its phase; most of that is defocus. So the middle of the scan is shortly
reconstructed from probes of many defoci, before and behind the focus, and the one that explains best what was left out is taken,
as it has become by then. A probe spreads with its defocus, so trials are as far apart as a probe is wide: neighbours differ by
STEP radians at the rim of the pupil, and the widest fills most of its array.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography import probes
from cluster_side.modalities.ptychography.cross_validation import BlindTrial, left_outs, shared
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import FirstProbe, Reconstruction

MOST_FRAMES = 64
STEP, WIDEST, MOST = 1.5, 0.3, 20
"""Radians between trials; the largest rms radius, as a share of the array; trials before and behind the focus, at most."""
SHORT, LONG = "LSQML 6", "LSQML 20"


@dataclass(frozen=True, slots=True)
class Pupil:
    """The amplitude of the mean frame, and the spatial frequencies squared (h, w), in cycles per pixel."""

    amplitude: NDArray[np.float32]
    square: NDArray[np.float64]

    @property
    def width(self) -> float:
        """The rms radius."""
        power = self.amplitude**2
        return float(max(np.sqrt((power * self.square).sum() / power.sum()), 1 / max(power.shape)))

    def probe(self, defocus: float) -> NDArray[np.complex64]:
        """Return the probe (1, h, w) of this pupil, out of focus."""
        wave = np.fft.fftshift(np.fft.ifft2(self.amplitude * np.exp(-1j * np.pi * defocus * self.square)))
        return probes.modes(wave, 1, float((self.amplitude**2).sum()))


def look_for_probe(job: Reconstruction) -> None:
    """Find the probe to begin with, where nobody knows it; once, and before memory is taken for anything else."""
    if job.first is None and job.means.settings.probe.unknown and job.scan.geometry.source is None:
        job.first = found(job)


def first_probes(job: Reconstruction) -> list[Any]:
    """Return what to begin with where positions may be other ones: the given probe (None), or some as far from focus."""
    if job.first is None:
        return [None]
    found = like(job, job.first.defocus)
    return [probes.modes(probe, job.means.settings.modes, float((np.abs(probe) ** 2).sum())) for probe in found]


def found(job: Reconstruction) -> FirstProbe:
    """Return a probe to begin with, the same on all ranks."""
    which = job.scan.middle(MOST_FRAMES)
    job = job.gathered(which)
    pupil = _pupil(job)
    step = STEP / (np.pi * pupil.width**2)
    most = min(MOST, int(WIDEST * min(pupil.square.shape) / (step * pupil.width)) + 1)
    numbers = sorted(range(-most, most + 1), key=abs)
    tried = _unexplained(job, which, [(number * step, pupil.probe(number * step)) for number in numbers])
    for finer in (step / 2, step / 4):
        best = min(tried, key=lambda one: tried[one])
        tried |= _unexplained(job, which, [(near, pupil.probe(near)) for near in (best - finer, best + finer)])
    best = min(tried, key=lambda one: tried[one])
    (parts,) = shared(job, [lambda: job.fitting(lambda: _trained(job, which, pupil.probe(best)))])
    return FirstProbe(np.asarray(parts, np.float32).view(np.complex64).reshape(1, *job.scan.probe_shape), best)


def like(job: Reconstruction, defocus: float) -> list[NDArray[np.complex64]]:
    """Return probes as wide as that of a defocus, before and behind the focus."""
    pupil = _pupil(job)
    return [pupil.probe(sign * share * defocus) for sign in (1, -1) for share in (0.85, 1.0, 1.18)]


def refocused(probe: NDArray[np.complex64], factor: float) -> NDArray[np.complex64]:
    """Return a probe (modes, h, w) whose defocus is multiplied by a factor.

    Its defocus is how far directions have come apart: the mean of place times direction, over that of direction squared.
    """
    height, width = probe.shape[-2:]
    place = np.fft.ifftshift(probe, axes=(-2, -1))
    spectrum = np.fft.fft2(place)
    directions = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    places = np.meshgrid(np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width), indexing="ij")
    square = directions[0] ** 2 + directions[1] ** 2
    apart = sum(direction * np.fft.fft2(place * where) for direction, where in zip(directions, places, strict=True))
    defocus = float((spectrum.conj() * apart).real.sum() / (np.abs(spectrum) ** 2 * square).sum())
    bent = np.fft.ifft2(spectrum * np.exp(-1j * np.pi * (factor - 1) * defocus * square))
    return np.asarray(np.fft.fftshift(bent, axes=(-2, -1)), np.complex64)


def _pupil(job: Reconstruction) -> Pupil:
    mean = probes.spread(job.mean(job.scan.middle(MOST_FRAMES)), job.means.settings.upsample)
    return Pupil(np.sqrt(mean), np.add.outer(*(np.fft.fftfreq(length) ** 2 for length in mean.shape)))


def _trained(job: Reconstruction, which: NDArray[np.int64], probe: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Return what a probe becomes while the middle of the scan is reconstructed: real and imaginary parts in turn."""
    bench = job.bench()
    frames, state = job.begin(bench, which, probe)
    run.run(bench, frames, state, job.plan_of(parse(LONG)))
    return np.asarray(job.means.backend.to_host(state.probe), np.complex128).view(np.float64).ravel()


def _unexplained(
    job: Reconstruction, which: NDArray[np.int64], probes: list[tuple[float, NDArray[np.complex64]]]
) -> dict[float, float]:
    """Return, by defocus, the misfit of frames that were left out from each probe, 1: that of the mean frame."""
    found = left_outs([BlindTrial(job, which, probe, 1, SHORT) for _, probe in probes])
    shares = [float(one.unseen.sum() / one.mean.sum()) for one in found]
    return {defocus: share if np.isfinite(share) else float("inf") for (defocus, _), share in zip(probes, shares, strict=True)}
