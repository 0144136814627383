"""What a reconstruction is asked once it is done, so that it can be told right from wrong (see `verdict` for the answer).

    explained         how well frames are explained that were left out (`cross_validation`)
    smaller, larger   by how much their misfit changes where positions are nearer together, and further apart
    axes              the same where one axis of the positions is turned round, or both change places: the smallest of them
    falling           share of what is explained that it takes some more iterations to explain, as far as it is no noise
    positions         how that misfit changes from measured to refined positions, where these were refined
    rest              how much the result leaves of what distinguishes frames from their mean, beyond counting statistics
    agreement         correlation of the objects that two halves make from the same probe, at low frequencies
    signal            how much of what distinguishes frames from their mean is more than counting statistics

Positions that mean nothing can as well be others: changes are large only where positions, probe and object belong together.
Only `signal` and `rest` need to know the noise. Scales are tried in the middle of the scan only.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.ptychography import start
from cluster_side.modalities.ptychography.cross_validation import FOLDS, LeftOut, agreement, left_out
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.prediction import misfits
from cluster_side.modalities.ptychography.engines.state import ReconstructionState
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import Reconstruction

Indexes = NDArray[np.int64]
Real = NDArray[np.float64]
MOST_FRAMES = 200
"""Frames that scales and signs are tried on."""
ENOUGH = 400
"""Parts of a scan are left out until so many frames are counted twice, or all of them once."""
TINY = 1e-6
STEP = 0.15
"""The change of scale that is tried."""
MORE = "LSQML 5"
"""The iterations in which a misfit must not fall much."""


@dataclass(frozen=True, slots=True)
class Change:
    """Misfit of frames that were left out, relative to that at the positions as they are; `spread`: its standard error."""

    ratio: float
    spread: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a verdict is made of; misfits are relative to the measured counts."""

    explained: float
    smaller: Change
    larger: Change
    axes: Change
    positions: Change | None
    falling: float
    rest: float
    agreement: float
    signal: float
    seen: float
    unseen: float
    mean: float
    result: float


def figures_of(measured: Reconstruction, state: ReconstructionState, now: Real) -> Figures:
    """Return the figures of a reconstruction of all known positions, which are now at `now`."""
    job = replace(measured, scan=replace(measured.scan, pixels=now))
    every, middle = np.arange(len(job.scan.known)), job.scan.middle(MOST_FRAMES)
    whole = left_out(job, every, state.probe, folds_for(every))
    part = whole if len(middle) == len(every) else left_out(job, middle, state.probe, folds_for(middle))
    smaller, larger = (scale_change(job, middle, state.probe, part, factor) for factor in (1 - STEP, 1 + STEP))
    moved = measured.means.settings.refine.positions_after is not None
    frame, (result, after) = job.mean(every), job.fitting(lambda: _continued(job, every, state))
    counts, mean = float(frame.sum()), float(whole.mean.mean())
    noise = float(counting_misfit(frame).sum())
    gained = (result - after) / (mean - after) if mean > after else 0.0
    return Figures(
        explained=whole.explained,
        smaller=smaller,
        larger=larger,
        axes=_axes(job, middle, state, part),
        positions=change(left_out(measured, middle, state.probe, folds_for(middle)), part) if moved else None,
        falling=gained * float(np.clip(whole.explained, 0, 1)) ** 2,
        agreement=agreement(job, middle, state.probe),
        rest=(result - noise) / (mean - noise) if mean > noise else 0.0,
        signal=1 - noise / mean,
        seen=whole.seen / counts,
        unseen=float(whole.unseen.mean()) / counts,
        mean=mean / counts,
        result=result / counts,
    )


def scale_change(job: Reconstruction, middle: Indexes, probe: Any, part: LeftOut, factor: float) -> Change:
    """Return what it does to multiply positions by a factor: with the probe so far, or with one that has followed, if better.

    A curved beam can make up for most of a wrong scale by its curvature (the hologram is magnified otherwise), so a probe that
    suits a wrong scale suits no other one, unless its defocus is scaled, too.
    """
    changes = [change(part, scaled(job, middle, probe, factor, folds_for(middle)))]
    if job.scan.geometry.source is None:
        bent = start.refocused(np.asarray(job.means.backend.to_host(probe)), factor)
        changes.append(change(part, scaled(job, middle, bent, factor, 1)))
    return min(changes, key=lambda one: one.ratio)


def _axes(job: Reconstruction, middle: Indexes, state: ReconstructionState, part: LeftOut) -> Change:
    """Return what the best other way to read the axes does, from the probe so far, and from other first ones.

    A probe that follows wrong axes may be bent so far that it suits no others: so these begin where the result began.
    """
    begin = (state.probe, *start.first_probes(job))
    tried = [(other, probe) for other in other_axes(job, middle).values() for probe in begin]
    return min((change(part, left_out(other, middle, probe, 1)) for other, probe in tried), key=lambda one: one.ratio)


def scaled(job: Reconstruction, which: Indexes, probe: Any, factor: float, folds: int) -> LeftOut:
    """Return what is left out where positions are multiplied by a factor, around their middle, and pixels divided by it."""
    middle = job.scan.pixels[which].mean(axis=0)
    pixels = middle + (job.scan.pixels - middle) * factor
    scan = replace(job.scan.moved(pixels, which), pixel=job.scan.pixel / factor)
    return left_out(replace(job, scan=scan, first=None), which, probe, folds)


def other_axes(job: Reconstruction, which: Indexes) -> "dict[str, Reconstruction]":
    """Return the job with each other way to read the axes of its positions, by what to try then.

    Where both signs are turned round, the far field cannot tell: the object is that of the other sign, conjugate.
    """
    (down, across), pixels, signs = job.scan.flip, job.scan.pixels, [(-1, 1), (1, -1)]
    if job.scan.geometry.source is not None:
        signs.append((-1, -1))
    tried = {f"try flip: [{one * down}, {other * across}]": pixels * (one, other) for one, other in signs}
    tried["try the two positions the other way round"] = pixels[:, ::-1]
    return {advice: replace(job, scan=job.scan.moved(there, which), first=None) for advice, there in tried.items()}


def folds_for(which: Indexes) -> int:
    """Return how many parts of so many positions are left out, one after the other."""
    return int(np.clip(np.ceil(ENOUGH / len(which)), 1, FOLDS))


def change(now: LeftOut, other: LeftOut) -> Change:
    """Return how the misfit of the same frames changes, in the geometric mean; `other` may have left out fewer of them.

    So all frames count alike: some at the rim of the scan, about which nobody knows anything, would else decide.
    """
    before = now.unseen[: len(other.unseen)]
    if not np.isfinite(before).all():
        return Change(float("nan"), float("nan"))
    if not np.isfinite(other.unseen).all():
        return Change(float("inf"), 0.0)
    least = TINY * float(now.mean.mean())
    logs = np.log((other.unseen + least) / (before + least))
    ratio = float(np.exp(logs.mean()))
    return Change(ratio, ratio * float(logs.std()) / np.sqrt(len(logs)))


def counting_misfit(expected: NDArray[np.float32]) -> Real:
    """Return the mean (root of counts - root of expected)² where counts are Poisson distributed: 1/4 for many of them."""
    below = np.concatenate([[0.0], np.geomspace(1e-3, 30.0, 100)])
    counts = np.arange(1, 120)
    logs = np.cumsum(np.log(counts))
    roots = [(np.sqrt(counts) * np.exp(counts * np.log(value) - value - logs)).sum() for value in below[1:]]
    table = np.concatenate([[0.0], 2 * below[1:] - 2 * np.sqrt(below[1:]) * roots])
    return np.asarray(np.interp(expected, below, table, right=0.25))


def _continued(job: Reconstruction, every: Indexes, state: ReconstructionState) -> tuple[float, float]:
    """Return the misfit per frame of a result, and that after some more iterations."""
    bench = job.bench()
    frames, more = job.begin(bench, every, state.probe)
    more.object, more.background = state.object, state.background
    sums = [misfits(bench, frames, more, between=job.between).sum()]
    run.run(bench, frames, more, job.plan_of(parse(MORE)))
    both = np.array([*sums, misfits(bench, frames, more, between=job.between).sum()])
    bench.team.add_up([both])
    return float(both[0]) / len(every), float(both[1]) / len(every)
