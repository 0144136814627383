"""How well frames are explained that were left out, by object and probe that were made anew of the others, from the probe so far.

Who fits wrong positions, or a wrong probe, fits the frames that it sees all the same (an object has freedom enough), but
cannot tell what the others show. So the misfit of frames that were left out says whether object and probe are right, and no
noise model is needed: it stands between that of who knows only the mean frame, and that of frames that were used.

Invariant: every number is the same on all ranks, and does not depend on how many they are, up to rounding.

Source: the free R factor of crystallography (Brünger, Nature 355 (1992) 472), here for amplitudes of ptychographic frames.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography import quality
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.prediction import mean_of, misfits, misfits_of_mean
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import Reconstruction

Indexes = NDArray[np.int64]
Real = NDArray[np.float64]
RECIPE = "LSQML 15"
"""What makes an object of known probe good enough to be asked."""
FOLDS, SEED = 4, 0
"""One frame in FOLDS is left out at a time: of half a scan, noise would be fitted, and too little would overlap."""

LOW = 0.1
"""Halves are compared up to so many cycles per pixel."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Misfits of frames that were left out, in the order of their positions, first those that were left out first."""

    unseen: Real
    mean: Real
    """Of who knows only the mean frame."""
    seen: float
    """Of a frame that was used, on average."""

    @property
    def explained(self) -> float:
        """Of what distinguishes frames from their mean, and can be explained: the share that is, in frames that were left out.

        1: frames that were left out are explained like those that were used; 0: no better than by the mean frame.
        """
        most = float(self.mean.mean()) - self.seen
        return float((self.mean - self.unseen).mean()) / most if most > 0 else float("-inf")


def folds_of(which: Indexes) -> list[Indexes]:
    """Return some positions in FOLDS parts (fewer than FOLDS: one each), drawn at random but always the same ones."""
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(which)
    return [np.sort(order[first::FOLDS]) for first in range(min(FOLDS, len(which)))]


def left_out(job: Reconstruction, which: Indexes, probe: Any, folds: int, recipe: str = RECIPE) -> LeftOut:
    """Leave out one part of these positions (sorted) after the other, so many times, and ask what was made of the others.

    `probe` (modes, h, w) is what the others begin with; None: what the settings say, or `start.look_for_probe` found.
    """
    parts = [job.fitting(partial(_left_out, job, which, out, (probe, recipe))) for out in folds_of(which)[:folds]]
    unseen, mean = (np.concatenate([part[row] for part, _ in parts]) for row in (0, 1))
    return LeftOut(unseen, mean, float(np.mean([seen for _, seen in parts])))


def _left_out(job: Reconstruction, which: Indexes, out: Indexes, begin: tuple[Any, str]) -> tuple[Real, float]:
    """Return misfits (of the model, of the mean; n) of the frames that are left out, and the mean one of those that are used."""
    bench, scan, between, (probe, recipe) = job.bench(), job.scan, job.between, begin
    used = np.setdiff1d(which, out)
    frames, state = job.begin(bench, used, probe)
    run.run(bench, frames, state, job.plan_of(parse(recipe)))
    seen, mean = misfits(bench, frames, state, between=between), mean_of(bench, frames)
    frames, own = job.begin(bench, out, state.probe)
    own.object, own.background = state.object, state.background
    found, total = np.zeros((2, len(out))), np.array([seen.sum()])
    here = np.searchsorted(scan.known[out], frames.members.own)
    found[0, here] = misfits(bench, frames, own, between=between)
    found[1, here] = misfits_of_mean(bench, frames, own, mean)
    bench.team.add_up([found, total])
    return found, float(total[0]) / len(used)


def agreement(job: Reconstruction, which: Indexes, probe: Any) -> float:
    """Return how far the objects agree that two halves of these positions make from the same probe: see `low_correlation`."""
    order = np.random.Generator(np.random.PCG64(SEED)).permutation(which)
    job = replace(job, scan=job.scan.moved(job.scan.pixels, which), first=None)
    halves = [job.fitting(partial(_object, job, np.sort(order[first::2]), probe)) for first in (0, 1)]
    inside = [quality.covered(half, job.scan.pixels[which], job.scan.probe_shape) for half in halves]
    one, other = (quality.without_ramp(part)[0] for part in inside)
    return quality.low_correlation(one, quality.aligned(one, other), LOW)


def _object(job: Reconstruction, which: Indexes, probe: Any) -> NDArray[np.complex128]:
    bench = job.bench()
    frames, state = job.begin(bench, which, probe)
    run.run(bench, frames, state, job.plan_of(parse(RECIPE)))
    return np.asarray(job.means.backend.to_host(state.object), complex)
