"""Interferometers, heavy half: counts or phases become positions.

A column holds one value per exposure, or several samples of which the mean over the gate is taken: over the samples where they
are evenly spaced, over time (trapezoid) where they have times. Every exposure is computed by itself: the fringe of a phase
follows from a coarse position, or from turns that were counted along the whole capture (`formats.samples`).
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.gating import LARGEST_STEP
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.interferometer.spec import InterferometerSettings, LaserBeamSettings
from cluster_side.modalities.points import columns, motor_stage
from cluster_side.modalities.points.columns import Column, Frames

Mask = NDArray[np.bool_]


def load(settings: InterferometerSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        datasets: dict[str, NDArray[Any]] = {}
        reasons: dict[str, dict[int, Mask]] = {}
        for name, axis in settings.axes.items():
            found, reasons[name] = measured(name, frames, settings, axis)
            datasets |= found
        drift = {name: movement(datasets[axis.reference], axis) for name, axis in settings.axes.items() if axis.reference}
        for name in settings.axes:
            if name in drift:
                datasets[name] = datasets[name] - drift[name]
                reasons[name][3] = ~np.isfinite(drift[name])
            why = reasons[name]
            datasets[f"flags/{name}"] = columns.flagged(len(datasets[name]), why)
        if settings.lab is not None:
            datasets |= motor_stage.laboratory(datasets, settings.lab, columns.given(frames, settings.lab.angle))
        return datasets

    return kernel


def measured(
    name: str, frames: Frames, settings: InterferometerSettings, axis: LaserBeamSettings
) -> tuple[dict[str, NDArray[Any]], dict[int, Mask]]:
    """Return the datasets of one axis, before its reference is taken off, and where which flag holds."""
    raw = columns.column(frames, axis.field)
    lost: Mask = np.zeros(len(raw), bool)
    if axis.fringe is None:
        places = counted(raw, axis)
    elif axis.continuous:
        whole = columns.column(frames, _counted_turns(frames, axis))
        places = phase_length(raw + 2 * np.pi * whole, axis)
        lost = np.asarray((np.isfinite(raw) & ~np.isfinite(whole)).reshape(len(raw), -1).any(axis=1))
    else:
        places = phase_length(np.unwrap(raw, axis=1) if raw.ndim == 2 else raw, axis)
    wide = np.zeros(len(raw), bool) if axis.continuous else torn(raw, axis)
    if axis.fringe is not None:
        places[wide] = np.nan
    datasets = _over_gate(name, frames, settings, places)
    far = np.zeros(len(raw), bool)
    if axis.fringe is not None and axis.coarse is not None:
        coarse = columns.single(frames, axis.coarse) * axis.coarse_scale
        shift, far = on_fringe(datasets[name], coarse, axis.fringe)
        datasets |= {key: datasets[key] + shift for key in (name, f"{name}_min", f"{name}_max") if key in datasets}
    return datasets, {0: ~np.isfinite(datasets[name]), 1: far, 2: wide, 4: lost}


def _counted_turns(frames: Frames, axis: LaserBeamSettings) -> str:
    if f"{axis.field}.turns" not in frames:
        raise BadInput(
            f"continuous: the turns of {axis.field!r} were not counted; set format: samples and options: "
            f"{{phases: {axis.field}}} in the source of the pipeline, or name a coarse position"
        )
    return f"{axis.field}.turns"


def _over_gate(name: str, frames: Frames, settings: InterferometerSettings, places: Column) -> dict[str, NDArray[Any]]:
    """Return mean, deviation and range of each exposure."""
    if settings.time is None or places.ndim == 1:
        return motor_stage.gate_statistics(name, places)
    times = columns.column(frames, settings.time)
    if settings.gate is not None and times.shape == places.shape:
        places, times = trimmed(places, times, *(columns.single(frames, end) for end in settings.gate))
    middle = columns.trapezoid(places, times)
    known = np.isfinite(times)
    known[~known.any(axis=1), 0] = True  # without samples: NaN
    return motor_stage.gate_statistics(name, np.where(np.isfinite(times), places, np.nan), known) | {name: middle}


def trimmed(places: Column, times: Column, starts: Column, ends: Column) -> tuple[Column, Column]:
    """Return samples and times (n, samples) from start to end of each gate (n,): the outer ones move there along the line.

    Samples beyond the ends have no time then. A gate that does not lie between the first and the last sample has none at all.
    """
    found, when = np.full((len(places), places.shape[1] + 2), np.nan), np.full((len(places), places.shape[1] + 2), np.nan)
    for row, (values, moments, start, end) in enumerate(zip(places, times, starts, ends, strict=True)):
        known = np.isfinite(moments)
        values, moments = values[known], moments[known]
        if not moments.size or not moments[0] <= start <= end <= moments[-1]:
            continue
        inside = (moments > start) & (moments < end)
        own = np.concatenate([[start], moments[inside], [end] if end > start else []])
        when[row, : own.size], found[row, : own.size] = own, np.interp(own, moments, values)
    return found, when


def counted(counts: Column, axis: LaserBeamSettings) -> Column:
    """Return the position of counts that are lengths: counts x resolution x sign + offset, without wrap-around."""
    step = (axis.resolution or 1.0) * axis.sign
    straight = counts if axis.bits is None else motor_stage.unwrapped(counts, axis.bits, (axis.near - axis.offset) / step)
    return straight * step + axis.offset


def phase_length(phases: Column, axis: LaserBeamSettings) -> Column:
    """Return phases (radians, unwrapped) as lengths."""
    return phases / (2 * np.pi) * (axis.fringe or 1.0) * axis.sign + axis.offset


def on_fringe(middle: Column, coarse: Column, fringe: float) -> tuple[Column, Mask]:
    """Return by how many whole fringes each mean (n,) moves to where it is nearest to the coarse position (n,), as a length.

    Also returns where the two then differ by more than a quarter of a fringe, so that the choice was a guess.
    """
    shift = fringe * np.rint((coarse - middle) / fringe)
    return shift, np.abs(coarse - (middle + shift)) > 0.25 * fringe


def movement(reference: Column, axis: LaserBeamSettings) -> Column:
    """Return how far the reference mirror has moved from where it rests."""
    return reference - axis.reference_at_rest


def torn(raw: Column, axis: LaserBeamSettings) -> Mask:
    """Return which exposures have neighbouring samples half a counter range apart, or almost half a turn, after unwrapping."""
    if raw.ndim == 1 or (axis.bits is None and axis.fringe is None):
        return np.zeros(len(raw), bool)
    if axis.fringe is not None:
        step = np.diff(raw, axis=1) / (2 * np.pi)
        return np.asarray((np.abs(step - np.rint(step)) > LARGEST_STEP).any(axis=1))
    places = counted(raw, axis)
    return np.asarray((np.abs(np.diff(places, axis=1)) >= (axis.resolution or 1.0) * 2.0 ** ((axis.bits or 1) - 1)).any(axis=1))
