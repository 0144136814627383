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
from cluster_side.modalities.ptychography.cross_validation import FOLDS, BlindTrial, LeftOut, agreement, left_outs, shared
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.prediction import mean_of, misfits, misfits_of_mean
from cluster_side.modalities.ptychography.engines.state import ReconstructionState
from cluster_side.modalities.ptychography.recipe import parse
from cluster_side.modalities.ptychography.reconstruction import Reconstruction

Indexes = NDArray[np.int64]
Real = NDArray[np.float64]
MOST_FRAMES, FEW_FRAMES = 128, 40
"""Frames in the middle that wrong ways are tried on; those on which the best of each kind is found."""
SHORT = "LSQML 5"
"""What finds it."""
ENOUGH = 256
"""Parts of the middle are left out until so many frames are counted twice, or all of them once."""
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
    frame, misfit = job.mean(every), job.fitting(lambda: _continued(job, every, state))
    tried = _tried(measured, job, middle, state)
    counts, noise, part = float(frame.sum()), float(counting_misfit(frame).sum()), tried.part
    gained = (misfit.result - misfit.after) / (misfit.mean - misfit.after) if misfit.mean > misfit.after else 0.0
    return Figures(
        explained=part.explained,
        smaller=tried.changes["smaller"],
        larger=tried.changes["larger"],
        axes=tried.changes["axes"],
        positions=tried.positions,
        falling=gained * float(np.clip(part.explained, 0, 1)) ** 3,
        rest=(misfit.result - noise) / (misfit.mean - noise) if misfit.mean > noise else 0.0,
        agreement=tried.agreement,
        signal=1 - noise / misfit.mean,
        seen=part.seen / counts,
        unseen=float(part.unseen.mean()) / counts,
        mean=misfit.mean / counts,
        result=misfit.result / counts,
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """Frames that were left out, what changes by each wrong way, and how far two halves agree."""

    part: LeftOut
    changes: dict[str, Change]
    positions: Change | None
    agreement: float


def _tried(measured: Reconstruction, job: Reconstruction, middle: Indexes, state: ReconstructionState) -> _Tried:
    """Try the middle of a scan as it is, in the best wrong way of each kind, and with measured positions, if these moved."""
    probe, few, folds = np.asarray(job.means.backend.to_host(state.probe)), job.scan.middle(FEW_FRAMES), folds_for(middle)
    job = job.gathered(middle)
    trials = {"part": BlindTrial(placed(job, job.scan.pixels, middle), middle, probe, folds)}
    best = best_ways(job, few, probe)
    for kind, ways in wrong_ways(job, middle, probe).items():
        other, begin = ways[best[kind]]
        trials[kind] = BlindTrial(other, middle, begin, folds)
    if measured.means.settings.refine.positions_after is not None:
        trials["positions"] = BlindTrial(placed(job, measured.scan.pixels, middle), middle, probe, folds)
    found = dict(zip(trials, left_outs(list(trials.values())), strict=True))
    (agreed,) = shared(job, [lambda: np.array([agreement(job, middle, probe)])])
    part, before = found.pop("part"), found.pop("positions", None)
    changes = {kind: change(part, other) for kind, other in found.items()}
    return _Tried(part, changes, None if before is None else change(before, part), float(agreed[0]))


def best_ways(job: Reconstruction, few: Indexes, probe: Any) -> dict[str, int]:
    """Return which of the wrong ways of each kind explains best the frames that were left out of a few."""
    ways = wrong_ways(job, few, probe)
    tried = iter(left_outs([BlindTrial(other, few, begin, 1, SHORT) for found in ways.values() for other, begin in found]))
    sums = {kind: [float(next(tried).unseen.sum()) for _ in found] for kind, found in ways.items()}
    return {kind: int(np.argmin([one if np.isfinite(one) else np.inf for one in found])) for kind, found in sums.items()}


def wrong_ways(job: Reconstruction, which: Indexes, probe: Any) -> dict[str, list[tuple[Reconstruction, Any]]]:
    """Return what to try for each kind of mistake: the job of some of its positions, and what to begin with.

    A probe that follows wrong axes may be bent so far that it suits no others: these are also tried from where the result began.
    """
    begin = (probe, *start.first_probes(job))
    return {
        "smaller": scales(job, which, probe, 1 - STEP),
        "larger": scales(job, which, probe, 1 + STEP),
        "axes": [(other, one) for other in other_axes(job, which).values() for one in begin],
    }


def scales(job: Reconstruction, which: Indexes, probe: Any, factor: float) -> list[tuple[Reconstruction, Any]]:
    """Return the job with positions multiplied by a factor, around their middle, with the probe so far, and one that followed.

    A curved beam can make up for most of a wrong scale by its curvature (the hologram is magnified otherwise), so a probe that
    suits a wrong scale suits no other one, unless its defocus is scaled, too.
    """
    middle = job.scan.pixels[which].mean(axis=0)
    other = placed(job, middle + (job.scan.pixels - middle) * factor, which)
    other = replace(other, scan=replace(other.scan, pixel=job.scan.pixel / factor), first=None)
    bent = [] if job.scan.geometry.source is not None else [start.refocused(probe, factor)]
    return [(other, one) for one in (probe, *bent)]


def scale_change(job: Reconstruction, middle: Indexes, probe: Any, part: LeftOut, factor: float) -> Change:
    """Return what it does to multiply positions by a factor, with the better one of the probes."""
    tried = left_outs([BlindTrial(other, middle, one, folds_for(middle)) for other, one in scales(job, middle, probe, factor)])
    return min((change(part, one) for one in tried), key=lambda one: one.ratio)


def placed(job: Reconstruction, pixels: Real, which: Indexes) -> Reconstruction:
    """Return the job with its positions elsewhere, and an object that is as large as some of them need."""
    return replace(job, scan=job.scan.moved(pixels, which))


def other_axes(job: Reconstruction, which: Indexes) -> "dict[str, Reconstruction]":
    """Return the job with each other way to read the axes of its positions, by what to try then.

    Where both signs are turned round, the far field cannot tell: the object is that of the other sign, conjugate.
    """
    (down, across), pixels, signs = job.scan.flip, job.scan.pixels, [(-1, 1), (1, -1)]
    if job.scan.geometry.source is not None:
        signs.append((-1, -1))
    tried = {f"try flip: [{one * down}, {other * across}]": pixels * (one, other) for one, other in signs}
    tried["try the two positions the other way round"] = pixels[:, ::-1]
    return {advice: replace(placed(job, there, which), first=None) for advice, there in tried.items()}


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


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Misfit per frame of a result, of that after some more iterations, and of who knows only the mean frame."""

    result: float
    after: float
    mean: float


def _continued(job: Reconstruction, every: Indexes, state: ReconstructionState) -> _Misfit:
    """Go on for some more iterations."""
    bench = job.bench()
    frames, more = job.begin(bench, every, state.probe)
    more.object, more.background = state.object, state.background
    sums = [
        misfits_of_mean(bench, frames, more, mean_of(bench, frames)).sum(),
        misfits(bench, frames, more, between=job.between).sum(),
    ]
    run.run(bench, frames, more, job.plan_of(parse(MORE)))
    all_sums = np.array([*sums, misfits(bench, frames, more, between=job.between).sum()])
    bench.team.add_up([all_sums])
    mean, result, after = (float(one) / len(every) for one in all_sums)
    return _Misfit(result, after, mean)
