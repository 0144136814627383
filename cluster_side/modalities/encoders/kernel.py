"""Encoders, heavy half: counts become positions.

A column has one value per exposure, or several samples (exposure, sample) of the exposure gate, of which mean, standard
deviation, minimum and maximum are taken. A lost trigger is NaN and stays NaN. All results are float64; every exposure is computed
by itself.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide import units
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.encoders.spec import AxisSettings, EncoderSettings
from cluster_side.modalities.points import columns, motor_stage
from cluster_side.modalities.points.columns import Column


def load(settings: EncoderSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        datasets: dict[str, NDArray[Any]] = {}
        for name, axis in settings.axes.items():
            datasets |= measured(name, columns.column(frames, axis.field), axis)
        if settings.lab is not None:
            angle = settings.lab.angle
            degrees = angle if isinstance(angle, float) else datasets[angle] * units.factor(settings.axes[angle].units, "deg")
            datasets |= motor_stage.laboratory(datasets, settings.lab, degrees)
        for name, extra in settings.extra.items():
            datasets[name] = columns.single(frames, extra.field) * extra.scale
        return datasets

    return kernel


def measured(name: str, counts: Column, axis: AxisSettings) -> dict[str, NDArray[Any]]:
    """Return the datasets of one axis from its counts (n,) or (n, samples)."""
    places = position(straightened(counts, axis), axis)
    keep = ~columns.spikes(places, axis.spike) if axis.spike is not None and places.ndim == 2 else None
    datasets = motor_stage.gate_statistics(name, places, keep)
    left_out = False if keep is None else ~keep.all(axis=1)
    reasons = {0: ~np.isfinite(datasets[name]), 1: left_out, 2: jumps(places, axis)}
    reasons[3] = axis.spike is not None and keep is None
    datasets[f"flags/{name}"] = columns.flagged(len(counts), reasons)
    return datasets


def straightened(counts: Column, axis: AxisSettings) -> Column:
    """Return the counts without the wrap-around of the counter, if it has one."""
    if axis.bits is None:
        return counts
    return motor_stage.unwrapped(counts, axis.bits, (axis.near - axis.offset) / (axis.resolution * axis.sign))


def position(counts: Column, axis: AxisSettings) -> Column:
    """Return counts x resolution x sign + offset, in the unit of the axis."""
    return counts * (axis.resolution * axis.sign) + axis.offset


def jumps(places: Column, axis: AxisSettings) -> NDArray[np.bool_]:
    """Return which exposures (n,) hold neighbouring samples that lie half a counter range apart, which no stage can do."""
    if axis.bits is None or places.ndim == 1:
        return np.zeros(len(places), bool)
    return np.asarray((np.abs(np.diff(places, axis=1)) >= axis.resolution * 2.0 ** (axis.bits - 1)).any(axis=1))
