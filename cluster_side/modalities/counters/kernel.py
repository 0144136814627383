"""Counters, heavy half: readings become rates, currents and the position of the beam.

Every exposure is computed by itself. Unknown values are NaN, and flags/<name> says why, one bit per reason.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster_side.modalities.base import Kernel
from cluster_side.modalities.counters.spec import CounterSettings, CountersSettings, ReferenceSettings
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Frames

Mask = NDArray[np.bool_]


def load(settings: CountersSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        seconds = None if settings.exposure is None else columns.given(frames, settings.exposure)
        values, reasons = {}, {}
        for name, one in settings.counters.items():
            values[name], reasons[name] = counted(frames, one, seconds)
        datasets: dict[str, NDArray[Any]] = beam(values, settings.beam) if settings.beam else {}
        for name, one in settings.counters.items():
            value, why = values[name], reasons[name]
            if one.normalise_to is not None:
                other = values[one.normalise_to]
                value, why[4] = columns.quotient(value, other), ~(other > 0)
            datasets[name] = value
            datasets[f"flags/{name}"] = columns.flagged(len(value), {**why, 0: why[0] & ~(why[1] | why[2])})
        return datasets

    return kernel


def counted(frames: Frames, one: CounterSettings, seconds: Column | float | None) -> tuple[Column, dict[int, Mask]]:
    """Return the values (n,) of one counter in its unit, before it is normalised, and where which flag holds."""
    samples = columns.column(frames, one.field)
    reading = columns.mean(samples)
    over = overloaded(samples, one.overload)
    time = np.full(len(reading), np.nan) if seconds is None else np.broadcast_to(seconds, reading.shape)
    time = np.where(time > 0, time, np.nan)
    value = reading if one.dead_time is None else live(reading, time, one.dead_time)
    dead = np.isnan(value) & np.isfinite(reading * time) if one.dead_time is not None else np.zeros(len(reading), bool)
    value = (value - (0.0 if one.dark is None else columns.given(frames, one.dark))) * one.gain
    value = np.where(over, np.nan, value / time if one.rate else value)
    nothing = np.full(len(reading), one.dark is None)
    return value, {0: ~np.isfinite(value), 1: over, 2: dead, 3: nothing}


def overloaded(samples: Column, limit: float | None) -> Mask:
    """Return which exposures hold a reading at or beyond the limit, on either side of zero."""
    if limit is None:
        return np.zeros(len(samples), bool)
    over = np.abs(samples) >= abs(limit)
    return np.asarray(over.any(axis=1)) if over.ndim == 2 else over


def live(counts: Column, seconds: Column, dead_time: float) -> Column:
    """Return the counts n / (1 - n tau / t) that a counter without dead time had seen; NaN where it was dead all the time.

    Non-paralysable model: G. F. Knoll, Radiation Detection and Measurement, 4th ed., eq. 4.23.
    """
    return columns.quotient(counts, 1.0 - counts * dead_time / seconds)


def beam(values: Mapping[str, Column], settings: ReferenceSettings) -> dict[str, NDArray[Any]]:
    """Return the position of the beam on a monitor of four diodes, in the unit of the scales, and their sum."""

    def together(names: tuple[str, ...]) -> Column:
        return np.asarray(np.sum([values[name] for name in names], axis=0))

    left, right, bottom, top = (together(side) for side in (settings.left, settings.right, settings.bottom, settings.top))
    return {
        "beam_x": settings.scale_x * columns.contrast(right, left),
        "beam_y": settings.scale_y * columns.contrast(top, bottom),
        "beam_sum": together(tuple({*settings.left, *settings.right, *settings.bottom, *settings.top})),
    }
