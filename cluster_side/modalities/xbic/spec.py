"""XBIC and XBIV, light half: from a lock-in amplifier's output to current or voltage.

    Z = (X - X0) + i (Y - Y0)                      the dark is complex, and taken off before the magnitude
    signal = Re(Z exp(-i phi0)) x scale            scale = sensitivity / full_scale x chopper_factor / preamp_gain

The magnitude of noise alone is not 0 but sigma sqrt(pi / 2); so a dark that is taken off R leaves a bias in every weak point, and
the signed projection has none.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from beamtide import units
from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import Positive, flag_output, together, unit_of
from cluster_side.modalities.readings import Reading

FLAGS = {
    0: "no value: a reading is NaN",
    1: "overload: the lock-in amplifier is at the end of its range",
    2: "the lock-in amplifier has not settled: the exposure is shorter than three time constants",
    3: "no dark level was given: what it reads without beam is still inside",
    4: "the monitor is not above zero, so nothing could be normalised to it",
    5: "the flux is not above zero, so there is no efficiency",
}
"""Bit of flags/signal -> what it says. Bits 0 and 1 come with NaN; 4 with NaN in what is normalised, 5 in the efficiency."""
SETTLED = 3.0
"""Time constants that an exposure has to last."""


class EfficiencySettings(SettingsModel):
    """Quantum efficiency: collected charges per electron-hole pair that the beam made.

    eta = I / (e x flux x absorbed x photon_energy / pair_energy).
    """

    flux: Positive | str
    """Photons per second: a number, or an input such as counters/flux."""
    photon_energy: Positive
    """keV."""
    absorbed: FiniteFloat = Field(gt=0, le=1)
    """The part of the photons that the active layer absorbs."""
    pair_energy: Positive
    """eV per electron-hole pair; about three band gaps."""


class XbicSettings(SettingsModel):
    """How the columns of a lock-in amplifier become current or voltage."""

    units: Annotated[str, unit_of(units.CURRENT, units.VOLTAGE)]
    """A unit of current (XBIC) or voltage (XBIV), for all results."""
    x: str | None = None
    """The column of X; give x and y, or r and theta."""
    y: str | None = None
    r: str | None = None
    theta: str | None = None
    theta_units: Literal["deg", "rad"] = "deg"
    dark: tuple[FiniteFloat, FiniteFloat] | tuple[str, str] | None = None
    """X and Y without beam, in the unit of the columns: two numbers, or two columns. Left out, every value is flagged."""
    sensitivity: Positive | str
    """Volts at the input that make `full_scale` at the output: a number, or the column that tells it."""
    full_scale: Positive
    """What the columns read at full scale: 10 for the volts of an analogue output. For volts read digitally, set both to 1."""
    preamp_gain: Positive
    """V/A of the current amplifier (XBIC), or the voltage gain before the lock-in amplifier (XBIV; 1 if none)."""
    chopper_factor: Positive
    """From the lock-in's r.m.s. amplitude to the signal's height: 2.2214 (pi / sqrt 2) for a beam chopped 50:50; 1 leaves it."""
    phase: FiniteFloat | Literal["median"]
    """phi0 in degrees; "median" takes it from the whole scan, and needs a pipeline whose source is the scan."""
    overload: Positive | None = None
    """Reading of X or Y from which on the amplifier is overloaded; default: `full_scale`."""
    time_constant: Positive | None = None
    """Of the lock-in amplifier, in seconds; with `exposure`, points that had no time to settle are flagged."""
    exposure: Positive | str | None = None
    """Seconds per point, or the column that measures them."""
    normalise_to: str | None = None
    """The beam monitor, as "pipeline/dataset" of the pipeline's inputs; gives signal x normalise_reference / monitor."""
    normalise_reference: Positive | None = None
    """The monitor value to which the signal is scaled."""
    efficiency: EfficiencySettings | None = None
    """For the quantum efficiency (currents only)."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        cartesian, polar = (self.x, self.y), (self.r, self.theta)
        if (None in cartesian) == (None in polar) or (None in cartesian and cartesian != (None, None)) or polar.count(None) == 1:
            raise ValueError("give the columns x and y, or r and theta; all of one pair and none of the other")
        together(self, "time_constant", "exposure")
        together(self, "normalise_to", "normalise_reference")
        if self.efficiency is not None and units.kind_of(self.units) != units.CURRENT:
            raise ValueError("efficiency: only a current has a quantum efficiency; this is a voltage")
        return self


def outputs(settings: XbicSettings) -> tuple[Output, ...]:
    """Return the signed signal, magnitude and phase, the two components, and what is derived from them."""
    unit, what = settings.units, "current" if units.kind_of(settings.units) == units.CURRENT else "voltage"
    declared = [
        Output("signal", unit, long_name=f"beam-induced {what}, in phase"),
        Output("r", unit, long_name=f"magnitude of the beam-induced {what}"),
        Output("theta", "deg", long_name="phase"),
        Output("x", unit, long_name="X, without dark"),
        Output("y", unit, long_name="Y, without dark"),
        flag_output("signal", FLAGS),
    ]
    if settings.normalise_to:
        scaled = f"{what}, scaled to {settings.normalise_to} = {settings.normalise_reference}"
        declared.append(Output("normalised", unit, long_name=scaled))
    if settings.efficiency:
        declared.append(Output("efficiency", "1", long_name="quantum efficiency"))
    return tuple(declared)


def takes(settings: XbicSettings) -> dict[str, str]:
    """Return the units of what is measured beside the signal."""
    flux = settings.efficiency.flux if settings.efficiency else None
    wanted = {settings.exposure: "s", flux: "1/s", settings.sensitivity: "V"}
    return {name: unit for name, unit in wanted.items() if isinstance(name, str)}


def reads(settings: XbicSettings) -> dict[str, Reading]:
    """Return in which units columns are wanted."""
    wanted = {settings.theta: settings.theta_units, settings.exposure: "s", settings.sensitivity: "V"}
    return {name: Reading(unit) for name, unit in wanted.items() if isinstance(name, str) and "/" not in name}


MODALITY = Modality(
    name="xbic",
    settings=XbicSettings,
    outputs=outputs,
    takes=takes,
    reads=reads,
    kernel="cluster_side.modalities.xbic.kernel:load",
)
