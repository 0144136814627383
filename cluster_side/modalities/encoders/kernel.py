"""Encoders, heavy half: counts become positions.

A column has one value per exposure, or several samples (exposure, sample) of which mean and standard deviation are taken.
A lost trigger is NaN and stays NaN. All results are float64.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.encoders.spec import AxisSettings, EncoderSettings

Column = NDArray[np.float64]


def load(settings: EncoderSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        datasets: dict[str, NDArray[Any]] = {}
        for name, axis in settings.axes.items():
            counts = column(frames, axis.field)
            datasets[name] = position(mean(counts), axis)
            if counts.ndim == 2:
                datasets[f"{name}_std"] = deviation(counts, axis)
        for name, extra in settings.extra.items():
            datasets[name] = mean(column(frames, extra.field)) * extra.scale
        return datasets

    return kernel


def position(counts: Column, axis: AxisSettings) -> Column:
    """Return counts x resolution x sign + offset."""
    return counts * (axis.resolution * axis.sign) + axis.offset


def deviation(counts: Column, axis: AxisSettings) -> Column:
    """Return the standard deviation of the samples of each exposure, as a length."""
    return np.asarray(counts.std(axis=1) * axis.resolution)


def mean(counts: Column) -> Column:
    """Return the mean of the samples of each exposure."""
    return np.asarray(counts.mean(axis=1)) if counts.ndim == 2 else counts


def column(frames: Mapping[str, NDArray[Any]], field: str) -> Column:
    """Return a column in float64; BadInput lists those that there are."""
    if field not in frames:
        raise BadInput(f"the frames have no column {field!r}, only {', '.join(sorted(frames))}; correct `field` in the settings")
    values = np.asarray(frames[field], np.float64)
    if values.ndim not in {1, 2} or (values.ndim == 2 and not values.shape[1]):
        raise BadInput(f"column {field!r} has shape {values.shape}; expected (exposures,) or (exposures, samples)")
    return values
