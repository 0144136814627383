"""How well frames are explained that were left out, by object and probe that were made anew of the others, from the probe so far.

Who fits wrong positions, or a wrong probe, fits the frames that it sees all the same (an object has freedom enough), but
cannot tell what the others show. So the misfit of frames that were left out says whether object and probe are right, and no
noise model is needed: it stands between that of who knows only the mean frame, and that of frames that were used.

Trials do not depend on each other, so each rank does some alone, on frames that all have (`Reconstruction.gathered`): ranks
that computed each trial together would mostly wait for each other. Every number is the same on all ranks, however many they are.

Source: the free R factor of crystallography (Brünger, Nature 355 (1992) 472), here for amplitudes of ptychographic frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.context import together
from cluster_side.modalities.ptychography import quality
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.prediction import mean_of, misfits, misfits_of_mean
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import Reconstruction

Indexes = NDArray[np.int64]
Real = NDArray[np.float64]
RECIPE = "LSQML 6"
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


@dataclass(frozen=True, slots=True)
class BlindTrial:
    """What to make of some positions (sorted) of a job that has all their frames, leaving out one part of them after the other.

    `probe` (modes, h, w) is what it begins with; None: what the settings say, or `start.look_for_probe` found.
    """

    job: Reconstruction
    which: Indexes
    probe: Any
    folds: int
    recipe: str = RECIPE

    @property
    def parts(self) -> list[Indexes]:
        """The positions that are left out, one part after the other."""
        return folds_of(self.which)[: self.folds]


def left_outs(trials: list[BlindTrial]) -> list[LeftOut]:
    """Return what each trial says of the frames that it leaves out."""
    if not trials:
        return []
    parts = [(trial, out) for trial in trials for out in trial.parts]
    rows = iter(shared(trials[0].job, [partial(_left_out, trial, out) for trial, out in parts]))
    return [_joined([next(rows) for _ in trial.parts], trial.parts) for trial in trials]


def shared(job: Reconstruction, tasks: list[Callable[[], Real]]) -> list[Real]:
    """Return the numbers (n,) that each task finds, on all ranks; each rank does some of the tasks alone."""
    team = job.means.context.team
    if team.size == 1:
        return [task() for task in tasks]
    found = together(team, lambda: {number: tasks[number]() for number in range(team.rank, len(tasks), team.size)})
    lengths = np.zeros(len(tasks))
    lengths[list(found)] = [len(one) for one in found.values()]
    team.add_up([lengths])
    numbers = [found.get(number, np.zeros(int(length))) for number, length in enumerate(lengths)]
    team.add_up(numbers)
    return numbers


def _joined(found: list[Real], parts: list[Indexes]) -> LeftOut:
    """Return the numbers of all parts of one trial together."""
    split = [np.split(one, [1, 1 + len(out)]) for one, out in zip(found, parts, strict=True)]
    seen, unseen, mean = zip(*split, strict=True)
    return LeftOut(np.concatenate(unseen), np.concatenate(mean), float(np.mean(seen)))


def _left_out(trial: BlindTrial, out: Indexes) -> Real:
    """Return the mean misfit of frames that are used, then those of the model, then those of the mean, of each one left out."""
    return trial.job.fitting(lambda: _asked(trial, np.setdiff1d(trial.which, out), out))


def _asked(trial: BlindTrial, used: Indexes, out: Indexes) -> Real:
    job, bench, between = trial.job, trial.job.bench(), trial.job.between
    frames, state = job.begin(bench, used, trial.probe)
    run.run(bench, frames, state, job.plan_of(parse(trial.recipe)))
    seen, mean = misfits(bench, frames, state, between=between), mean_of(bench, frames)
    frames, own = job.begin(bench, out, state.probe)
    own.object, own.background = state.object, state.background
    found, here = np.zeros((2, len(out))), np.searchsorted(job.scan.known[out], frames.members.own)
    found[0, here] = misfits(bench, frames, own, between=between)
    found[1, here] = misfits_of_mean(bench, frames, own, mean)
    return np.concatenate([[seen.mean()], *found])


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
