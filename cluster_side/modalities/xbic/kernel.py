"""XBIC and XBIV, heavy half: a lock-in amplifier's X and Y become current or voltage, its phase, and the quantum efficiency.

One complex number per exposure, Z = X + iY in the unit of the columns, until the scale makes a current or a voltage of it.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide import units
from beamtide.errors import BadInput
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Frames
from cluster_side.modalities.xbic.spec import SETTLED, EfficiencySettings, XbicSettings

Complex = NDArray[np.complex128]
Mask = NDArray[np.bool_]
ELEMENTARY_CHARGE = 1.602176634e-19
"""Coulomb; exact (SI 2019)."""


def load(settings: XbicSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings."""

    def kernel(frames: Frames) -> dict[str, NDArray[Any]]:
        raw, over = reading(frames, settings)
        signal = np.where(over, np.nan, (raw - dark(frames, settings)) * scale(frames, settings))
        phase = reference_phase(signal, frames) if settings.phase == "median" else float(settings.phase)
        datasets: dict[str, NDArray[Any]] = {
            "signal": in_phase(signal, phase),
            "r": np.abs(signal),
            "theta": np.degrees(np.angle(signal)),
            "x": signal.real.copy(),
            "y": signal.imag.copy(),
        }
        reasons: dict[int, Mask | bool] = {
            0: ~np.isfinite(signal) & ~over,
            1: over,
            2: unsettled(frames, settings, len(raw)),
            3: settings.dark is None,
        }
        if settings.normalise_to is not None and settings.normalise_reference is not None:
            monitor = columns.single(frames, settings.normalise_to)
            datasets["normalised"] = columns.quotient(datasets["signal"] * settings.normalise_reference, monitor)
            reasons[4] = ~(monitor > 0)
        if settings.efficiency is not None:
            amperes = datasets["signal"] * units.factor(settings.units, "A")
            datasets["efficiency"], reasons[5] = efficiency(amperes, frames, settings.efficiency)
        datasets["flags/signal"] = columns.flagged(len(raw), reasons)
        return datasets

    return kernel


def reading(frames: Frames, settings: XbicSettings) -> tuple[Complex, Mask]:
    """Return Z of each exposure as read, and where the amplifier was overloaded."""
    limit = settings.full_scale if settings.overload is None else settings.overload
    if settings.x is not None and settings.y is not None:
        x, y = columns.single(frames, settings.x), columns.single(frames, settings.y)
        return x + 1j * y, (np.abs(x) >= limit) | (np.abs(y) >= limit)
    r, theta = columns.single(frames, settings.r or ""), columns.single(frames, settings.theta or "")
    return polar(r, theta * units.factor(settings.theta_units, "rad")), np.abs(r) >= limit


def polar(r: Column, theta: Column) -> Complex:
    """Return R exp(i theta), theta in radians."""
    return np.asarray(r * np.exp(1j * theta))


def dark(frames: Frames, settings: XbicSettings) -> Complex:
    """Return X0 + i Y0 in the unit of the columns; 0 where none was given (which is flagged)."""
    if settings.dark is None:
        return np.zeros((), complex)
    x, y = (np.asarray(columns.given(frames, one)) for one in settings.dark)
    return np.asarray(x + 1j * y)


def scale(frames: Frames, settings: XbicSettings) -> Column | float:
    """Return the factor of a reading: sensitivity / full_scale x chopper_factor / preamp_gain, in the wanted unit."""
    base = {units.CURRENT: "A", units.VOLTAGE: "V"}[units.kind_of(settings.units)]
    constant = settings.chopper_factor / settings.full_scale / settings.preamp_gain * units.factor(base, settings.units)
    return columns.given(frames, settings.sensitivity) * constant


def in_phase(signal: Complex, degrees: float) -> Column:
    """Return Re(Z exp(-i phi0)): the part in phase with the reference, with its sign, without a bias by noise."""
    return np.asarray((signal * np.exp(-1j * np.radians(degrees))).real)


def reference_phase(signal: Complex, frames: Frames) -> float:
    """Return the median phase (degrees) of the stronger half of the points; BadInput unless these are all of the scan's.

    Around the strong mean direction, so that phases about 180 degrees are not torn apart.
    """
    if "scan/line" not in frames:
        raise BadInput('phase: "median" needs all points at once: set source: {kind: scan} and name the columns as inputs')
    known = signal[np.isfinite(signal)]
    if not known.size or not (total := np.sum(known * np.abs(known))):
        return 0.0
    strong = known[np.abs(known) >= np.median(np.abs(known))]
    direction = np.angle(total)
    return float(np.degrees(direction + np.median(np.angle(strong * np.exp(-1j * direction)))))


def unsettled(frames: Frames, settings: XbicSettings, length: int) -> Mask:
    """Return which exposures were shorter than three time constants: they are smeared along the fast axis."""
    if settings.time_constant is None or settings.exposure is None:
        return np.zeros(length, bool)
    return np.broadcast_to(columns.given(frames, settings.exposure) < SETTLED * settings.time_constant, length)


def efficiency(amperes: Column, frames: Frames, settings: EfficiencySettings) -> tuple[Column, Mask]:
    """Return the quantum efficiency of each exposure, and where it is unknown because no flux was measured."""
    flux = columns.given(frames, settings.flux)
    return quantum_efficiency(amperes, flux, settings), ~(np.asarray(flux) > 0)


def quantum_efficiency(amperes: Column, flux: Column | float, settings: EfficiencySettings) -> Column:
    """Return I / (e x flux x absorbed x E / pair energy); NaN where the flux is not above zero."""
    pairs_per_photon = settings.absorbed * 1e3 * settings.photon_energy / settings.pair_energy
    possible = np.broadcast_to(ELEMENTARY_CHARGE * np.asarray(flux) * pairs_per_photon, amperes.shape)
    return columns.quotient(amperes, possible)
