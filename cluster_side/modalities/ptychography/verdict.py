"""Whether a reconstruction is one: converged, did not converge, or cannot tell; and what to try where it did not.

    converged         frames that were left out are explained, positions could not be any others, and the misfit has settled
    did not converge  one of these is plainly not so
    cannot tell       neither: too few photons or too little overlap to say

The thresholds were set on one half of the runs of benchmarks/ptycho_verdicts.py, and judged on the other (docs/proofs). In the
far field no verdict can see that both signs of `flip` are wrong: the frames are those of the object turned by 180 degrees,
conjugate.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from beamtide.results.verdict import CONVERGED, NO_BETTER, NOT_CONVERGED, UNKNOWN
from cluster_side.modalities.ptychography.assessment import (
    MOST_FRAMES,
    STEP,
    Change,
    Figures,
    change,
    figures_of,
    folds_for,
    other_axes,
    scale_change,
)
from cluster_side.modalities.ptychography.cross_validation import BlindTrial, left_outs
from cluster_side.modalities.ptychography.engines.state import ReconstructionState
from cluster_side.modalities.ptychography.reconstruction import Reconstruction
from cluster_side.modalities.ptychography.spec import QUALITY
from cluster_side.modalities.ptychography.start import look_for_probe

EXPLAINED, UNEXPLAINED = 0.4, 0.3
"""Shares from which on, and below which, frames that were left out are explained, and are not."""
LEAST, WORSE, BETTER = 0.01, 1.5, 2.0
"""Other scales and axes are worse, or better, if misfits differ by a share of LEAST at least, and by so many standard errors."""
PLAIN, PLAINLY = 1.1, 5.0
"""Other scales and axes are plainly worse if misfits are as many times as high, and so many standard errors; then UNEXPLAINED is
enough, because noise may be what keeps frames from being explained."""
REST, TOO_MUCH = 0.2, 0.5
"""Shares of what distinguishes frames, beyond counting statistics: what a result may leave unexplained, and what is too much."""
FALLING = 0.008
"""Share of what is explained that some more iterations may bring."""
REFINED = 0.03
"""Refined positions are better if frames that were left out are explained better by this share at least."""
AGREEMENT = 0.5
"""Correlation from which on two halves show the same object."""
SIGNAL = 0.15
"""Share of what distinguishes frames from their mean that must be more than counting statistics."""
Reason = Literal["", "axes", "scale", "falling", "unexplained", "rest", "noise"]
ADVICE = {
    "axes": "try another flip, or the two positions the other way round",
    "falling": "try more iterations: the misfit still falls",
    "unexplained": "try the probe of your optics with its defocus, more modes, or check positions, energy and distance",
    "rest": "try more modes or refine.background, or check distance, energy and source: frames are explained only in part",
    "noise": "try more photons or smaller steps: the frames do not say whether this object is right",
}
FURTHER = 4
"""How often a better scale is followed, to say about where the best one is."""


Datasets = dict[str, NDArray[Any]]
LONGEST = 256
"""Bytes of a sentence in a dataset."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, what to try ("" where it converged), and the figures that it was made of."""

    verdict: str
    advice: str
    figures: Figures


def judgement_on(job: Reconstruction, state: ReconstructionState, now: NDArray[np.float64]) -> Judgement:
    """Return what is to be thought of a reconstruction of all known positions, which are now at `now` (n, 2), in pixels."""
    figures = figures_of(job, state, now)
    verdict, reason = verdict_of(figures)
    if reason == "":
        return Judgement(verdict, "", figures)
    middle = replace(job.scan, pixels=now).middle(MOST_FRAMES)
    job = replace(job, scan=replace(job.scan, pixels=now)).gathered(middle)
    if reason != "falling" and (axes := _better_axes(job, state, middle)):
        return Judgement(NOT_CONVERGED, axes, figures)
    if reason == "scale":
        return Judgement(verdict, _advice_on_scale(job, state, middle, figures), figures)
    return Judgement(verdict, ADVICE[reason], figures)


def on_positions(figures: Figures) -> str:
    """Return what is to be thought of refined positions; "" where they were not refined."""
    if (now := figures.positions) is None:
        return ""
    if now.ratio < 1 - max(REFINED, BETTER * now.spread):
        return f"refined: they explain frames that were left out better than the measured ones (misfit x {now.ratio:.2f})"
    return (
        f"{NO_BETTER} than the measured ones (misfit of frames that were left out x {now.ratio:.3f}): "
        "trust position_x_used and position_y_used, and leave refine.positions_after out"
    )


def verdict_of(figures: Figures) -> tuple[str, Reason]:
    """Return the verdict that figures lead to, and why it is no better; what is no number is no success."""
    changes = (figures.smaller, figures.larger, figures.axes)
    if _better(figures.axes) and figures.explained > 0:
        return NOT_CONVERGED, "axes"
    if figures.falling > FALLING:
        return NOT_CONVERGED, "falling"
    if any(_better(one) for one in changes[:2]) and figures.explained > 0:
        return NOT_CONVERGED, "scale"
    certain = figures.explained > -1 and all(one.ratio > max(PLAIN, 1 + PLAINLY * one.spread) for one in changes)
    if not (figures.explained >= UNEXPLAINED or certain):
        noisy = figures.signal < SIGNAL and not figures.axes.ratio < min(1 / PLAIN, 1 - PLAINLY * figures.axes.spread)
        return (UNKNOWN, "noise") if noisy else (NOT_CONVERGED, "unexplained")
    if not figures.falling <= FALLING:
        return NOT_CONVERGED, "falling"
    if not figures.rest <= REST:
        return (NOT_CONVERGED if figures.rest > TOO_MUCH else UNKNOWN), "rest"
    told = figures.explained >= (UNEXPLAINED if certain else EXPLAINED)
    if not (told and figures.agreement >= AGREEMENT and all(_worse(one) for one in changes[:2])):
        return UNKNOWN, "noise"
    return CONVERGED, ""


def _advice_on_scale(job: Reconstruction, state: ReconstructionState, middle: Any, figures: Figures) -> str:
    """Follow the scale that explains more, and say which distance it stands for."""
    step = 1 - STEP if _better(figures.smaller) else 1 + STEP
    probe, tried = np.asarray(job.means.backend.to_host(state.probe)), [(1.0, 1.0)]
    (now,) = left_outs([BlindTrial(job, middle, probe, folds_for(middle))])
    for power in range(1, FURTHER + 1):
        factor = step**power
        tried.append((factor, scale_change(job, middle, probe, now, factor).ratio))
        if not tried[-1][1] < tried[-2][1]:
            break
    factor, distance = _lowest(tried[-3:]), job.scan.geometry.distance
    wider = f"frames fit better with positions about {factor:.2g} times as far apart"
    if job.scan.geometry.source is not None:
        return f"{wider}: try another distance or source, or check detector_pixel and the unit of the positions"
    return f"{wider}: try distance {distance / factor:.2g} (now {distance:.3g}), or check energy, detector_pixel and units"


def _lowest(tried: list[tuple[float, float]]) -> float:
    """Return the factor with the lowest ratio, between the last three where these enclose it."""
    best = min(tried, key=lambda one: one[1])
    if len(tried) < 3 or best is not tried[1]:
        return best[0]
    bend, tilt, _ = np.polyfit(np.log([factor for factor, _ in tried]), [ratio for _, ratio in tried], 2)
    return float(np.exp(-tilt / (2 * bend)))


def _better_axes(job: Reconstruction, state: ReconstructionState, middle: Any) -> str:
    """Return what to try if frames that were left out are explained better with other axes of the positions; "" if not."""
    others, found = other_axes(job, middle), {}
    for other in others.values():
        look_for_probe(other)
    trials = [BlindTrial(job, middle, np.asarray(job.means.backend.to_host(state.probe)), folds_for(middle))]
    now, *tried = left_outs([*trials, *(BlindTrial(other, middle, None, folds_for(middle)) for other in others.values())])
    for advice, there in zip(others, tried, strict=True):
        if _better(change(now, there)) and there.explained > UNEXPLAINED:
            found[advice] = there.explained
    return max(found, key=lambda advice: found[advice], default="")


def _better(seen: Change) -> bool:
    return seen.ratio < 1 - max(LEAST, BETTER * seen.spread)


def _worse(seen: Change) -> bool:
    return seen.ratio > 1 + max(LEAST, WORSE * seen.spread)


def judged(judgement: Judgement, below: str = QUALITY) -> Datasets:
    """Return what is to be thought of a reconstruction, and its figures, as datasets below a group."""
    figures = judgement.figures
    numbers = {
        "explained": figures.explained,
        "agreement": figures.agreement,
        "misfit": figures.result,
        "misfit_left_out": figures.unseen,
        "misfit_of_mean": figures.mean,
        "misfit_falling": figures.falling,
        "rest": figures.rest,
        "signal": figures.signal,
    }
    changes = {"scale_smaller": figures.smaller, "scale_larger": figures.larger, "other_axes": figures.axes}
    changes |= {"refined_positions": figures.positions} if figures.positions is not None else {}
    for name, one in changes.items():
        numbers |= {name: one.ratio, f"{name}_error": one.spread}
    datasets: Datasets = {f"{below}/{name}": np.array(number, np.float64) for name, number in numbers.items()}
    if said := on_positions(figures):
        datasets[f"{below}/positions"] = np.array(said.encode()[:LONGEST], f"S{LONGEST}")
    datasets[f"{below}/verdict"] = np.array(judgement.verdict.encode(), "S32")
    datasets[f"{below}/advice"] = np.array(judgement.advice.encode()[:LONGEST], f"S{LONGEST}")
    return datasets
