"""The phase of a scan, heavy half: deflections and positions of all indexes become gradients, phase and absorption.

The raster is fitted to the measured positions, so a rotated, skewed or backwards scan needs no interpolation: the gradient is
projected onto the raster's own two directions and integrated in steps of line and column. Unknown values are replaced by their
nearest neighbour for the integration only, and are NaN in the result.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide import units
from beamtide.errors import BadInput
from beamtide.gridding import Lattice, fit_lattice, nearest_fill
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.dpc_phase.integrate import frankot_chellappa, without_plane
from cluster_side.modalities.dpc_phase.spec import PhaseSettings
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Frames

HC = 1.2398419843320026e-9
"""Planck's constant times the speed of light, in keV m (SI 2019)."""
Places = NDArray[np.int64]


def load(settings: PhaseSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        line, column = _places(frames)
        x, y = (columns.single(frames, name) for name in (settings.x, settings.y))
        empty = undisturbed(x, y, settings)
        gradients = [
            gradient(columns.single(frames, name), empty, sign, settings.photon_energy)
            for name, sign in ((settings.angle_x, settings.sign_x), (settings.angle_y, settings.sign_y))
        ]
        lattice = fit_lattice(x, y, line, column)
        known = np.isfinite(x * y * gradients[0] * gradients[1])
        phase = integrated(gradients, known, (line, column), (lattice, units.factor(settings.position_units, "m")))
        step = min(np.hypot(*lattice.fast), np.hypot(*lattice.slow))
        absorbed = absorption(_counted(frames, settings), empty)
        return {
            "phase": np.where(known, phase, np.nan),
            "gradient_x": gradients[0],
            "gradient_y": gradients[1],
            "absorption": absorbed,
            "flags/phase": columns.flagged(len(x), {0: ~known, 1: lattice.rms > 0.25 * step, 2: np.isnan(absorbed)}),
        }

    return kernel


def undisturbed(x: Column, y: Column, settings: PhaseSettings) -> NDArray[np.bool_]:
    """Return which indexes (n,) show the beam without a sample; BadInput if the region holds none."""
    if settings.reference == "median":
        return np.ones(len(x), bool)
    (left, right), (low, high) = settings.reference.x, settings.reference.y
    inside = (x >= left) & (x <= right) & (y >= low) & (y <= high)
    if not inside.any():
        raise BadInput(
            f"reference: no point of the scan lies in x {left} to {right}, y {low} to {high} {settings.position_units}"
        )
    return inside


def gradient(angle: Column, empty: NDArray[np.bool_], sign: int, photon_energy: float) -> Column:
    """Return 2 pi / lambda x (angle - reference) in rad/m; the reference is the median of the undisturbed angles (rad)."""
    known = angle[empty & np.isfinite(angle)]
    if not known.size:
        raise BadInput("reference: no deflection is known where the beam should be undisturbed; look at the dpc pipeline's flags")
    return sign * 2 * np.pi * photon_energy / HC * (angle - np.median(known))


def absorption(counted: Column, empty: NDArray[np.bool_]) -> Column:
    """Return -ln(counted / median of the undisturbed); NaN where nothing was counted."""
    known = counted[empty & (counted > 0)]
    found = np.full(counted.shape, np.nan)
    if known.size:
        np.log(np.median(known) / np.where(counted > 0, counted, np.nan), out=found)
    return found


def integrated(
    gradients: list[Column], known: NDArray[np.bool_], places: tuple[Places, Places], raster: tuple[Lattice, float]
) -> Column:
    """Return the phase (rad) of each index from its gradients (rad/m); `raster` is the lattice and its unit in metres."""
    (line, column), (lattice, metre) = places, raster
    shape = int(line.max()) + 1, int(column.max()) + 1
    steps = [np.full(shape, np.nan), np.full(shape, np.nan)]
    for step, (along_x, along_y) in zip(steps, (lattice.fast, lattice.slow), strict=True):
        step[line[known], column[known]] = (gradients[0] * along_x + gradients[1] * along_y)[known] * metre
    measured = np.isfinite(steps[0])
    size = float(np.hypot(*lattice.slow)), float(np.hypot(*lattice.fast))
    filled = [nearest_fill(step, size)[0] for step in steps]
    phase = without_plane(frankot_chellappa(filled[0], filled[1]), measured)
    return np.asarray((phase - np.median(phase[measured]))[line, column])


def _counted(frames: Frames, settings: PhaseSettings) -> Column:
    counted = columns.single(frames, settings.sum)
    if settings.i0 is None:
        return counted
    return columns.quotient(counted, columns.single(frames, settings.i0))


def _places(frames: Frames) -> tuple[Places, Places]:
    if "scan/line" not in frames:
        raise BadInput("the phase needs all points at once: set source: {kind: scan} in the pipeline file")
    return frames["scan/line"], frames["scan/column"]
