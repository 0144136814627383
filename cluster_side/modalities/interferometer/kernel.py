"""Interferometers, heavy half: counts or phases become positions.

A column holds one value per exposure, or several samples of which the mean over the gate is taken: over the samples where they
are evenly spaced, over time (trapezoid) where they have times. Every exposure is computed by itself: the fringe of a phase
follows from a coarse position, never from the exposure before.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    if axis.fringe is not None and axis.coarse is not None:
        coarse = columns.single(frames, axis.coarse) * axis.coarse_scale
        places, far = on_fringe(phase_length(raw, axis), coarse, axis.fringe)
    else:
        places, far = counted(raw, axis), np.zeros(len(raw), bool)
    datasets = motor_stage.gate_statistics(name, places)
    if settings.time is not None and places.ndim == 2:
        datasets[name] = columns.trapezoid(places, columns.column(frames, settings.time))
    return datasets, {0: ~np.isfinite(datasets[name]), 1: far, 2: torn(raw, axis)}


def counted(counts: Column, axis: LaserBeamSettings) -> Column:
    """Return the position of counts that are lengths: counts x resolution x sign + offset, without wrap-around."""
    step = (axis.resolution or 1.0) * axis.sign
    straight = counts if axis.bits is None else motor_stage.unwrapped(counts, axis.bits, (axis.near - axis.offset) / step)
    return straight * step + axis.offset


def phase_length(phases: Column, axis: LaserBeamSettings) -> Column:
    """Return phases (radians) as lengths, unwrapped along the samples of each exposure, up to whole fringes."""
    straight = np.unwrap(phases, axis=1) if phases.ndim == 2 else phases
    return straight / (2 * np.pi) * (axis.fringe or 1.0) * axis.sign + axis.offset


def on_fringe(places: Column, coarse: Column, fringe: float) -> tuple[Column, Mask]:
    """Move each exposure by whole fringes to where its mean is nearest to the coarse position (n,).

    Also returns where the two then differ by more than a quarter of a fringe, so that the choice was a guess.
    """
    middle = columns.mean(places)
    shift = fringe * np.rint((coarse - middle) / fringe)
    far = np.abs(coarse - (middle + shift)) > 0.25 * fringe
    return places + (shift[:, None] if places.ndim == 2 else shift), far


def movement(reference: Column, axis: LaserBeamSettings) -> Column:
    """Return how far the reference mirror has moved from where it rests."""
    return reference - axis.reference_at_rest


def torn(raw: Column, axis: LaserBeamSettings) -> Mask:
    """Return which exposures have neighbouring samples half a counter range apart, after unwrapping."""
    if axis.bits is None or raw.ndim == 1:
        return np.zeros(len(raw), bool)
    places = counted(raw, axis)
    return np.asarray((np.abs(np.diff(places, axis=1)) >= (axis.resolution or 1.0) * 2.0 ** (axis.bits - 1)).any(axis=1))
