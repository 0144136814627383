"""A first probe for those who know nothing of it: how far from focus the sample is, found by trying.

The mean frame shows how bright the pupil is, but not its phase; most of that is defocus. So the middle of the scan is shortly
reconstructed from probes of many defoci, before and behind the focus, and the one that explains best what was left out is taken,
as it has become by then. A probe spreads with its defocus, so trials are as far apart as a probe is wide: neighbours differ by
STEP radians at the rim of the pupil, and the widest fills most of its array.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography import probes
from cluster_side.modalities.ptychography.cross_validation import left_out
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import Reconstruction

MOST_FRAMES = 64
STEP, WIDEST, MOST = 1.5, 0.3, 20
"""Radians between trials; the largest rms radius, as a share of the array; trials before and behind the focus, at most."""
SHORT, LONG = "LSQML 6", "LSQML 20"


def look_for_probe(job: Reconstruction) -> None:
    """Find the probe to begin with, where nobody knows it; once, and before memory is taken for anything else."""
    if job.first is None and job.means.settings.probe.unknown and job.scan.geometry.source is None:
        job.first = found(job)


def found(job: Reconstruction) -> Any:
    """Return a probe (1, h, w) to begin with, of the power of the mean frame; the same on all ranks."""
    which = job.scan.middle(MOST_FRAMES)
    mean = job.mean(which)
    pupil = np.sqrt(probes.spread(mean, job.means.settings.upsample))
    square = np.add.outer(*(np.fft.fftfreq(length) ** 2 for length in pupil.shape))
    width = max(float(np.sqrt((pupil**2 * square).sum() / (pupil**2).sum())), 1 / max(pupil.shape))
    step = STEP / (np.pi * width**2)
    most = min(MOST, int(WIDEST * min(pupil.shape) / (step * width)) + 1)

    def at(defocus: float) -> NDArray[np.complex64]:
        wave = np.fft.fftshift(np.fft.ifft2(pupil * np.exp(-1j * np.pi * defocus * square)))
        return probes.modes(wave, 1, float(mean.sum()))

    tried = {number * step: _unexplained(job, which, at(number * step)) for number in sorted(range(-most, most + 1), key=abs)}
    for finer in (step / 2, step / 4):
        best = min(tried, key=lambda one: tried[one])
        tried |= {near: _unexplained(job, which, at(near)) for near in (best - finer, best + finer)}
    first = at(min(tried, key=lambda one: tried[one]))
    return job.fitting(lambda: _trained(job, which, first))


def _trained(job: Reconstruction, which: NDArray[np.int64], probe: NDArray[np.complex64]) -> Any:
    """Return what a probe becomes while the middle of the scan is reconstructed."""
    bench = job.bench()
    frames, state = job.begin(bench, which, probe)
    run.run(bench, frames, state, job.plan_of(parse(LONG)))
    return state.probe


def _unexplained(job: Reconstruction, which: NDArray[np.int64], probe: NDArray[np.complex64]) -> float:
    """Return the misfit of frames that were left out, 1: that of the mean frame."""
    found = left_out(job, which, probe, 1, SHORT)
    share = float(found.unseen.sum() / found.mean.sum())
    return share if np.isfinite(share) else float("inf")
