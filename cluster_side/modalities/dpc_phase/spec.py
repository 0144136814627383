"""The phase of a scan, light half: from the deflection of every point to the phase, once all points are there.

    d phi / dx = 2 pi / lambda x (angle_x - reference)      rad/m
    phi                                                     integrated over the raster, a plane taken off

Its pipeline has source {kind: scan}: one task for the whole scan, made of other pipelines' datasets.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import LengthUnit, Positive, flag_output

FLAGS = {
    0: "no value here: the deflection or the position is not known; the phase around it used the nearest",
    1: "the raster of the scan lies further from the measured positions than a quarter of its step",
    2: "no absorption here: nothing was counted, or the beam monitor is not above zero",
}
"""Bit of flags/phase -> what it says. Bit 0 comes with NaN, bit 2 with NaN in the absorption."""
DatasetPath = Annotated[str, Field(pattern=r"^[^/]+/.+$")]


class RegionSettings(SettingsModel):
    """A rectangle of the sample, in the unit of the positions, where the beam meets nothing."""

    x: tuple[FiniteFloat, FiniteFloat]
    y: tuple[FiniteFloat, FiniteFloat]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (self.x[0] < self.x[1] and self.y[0] < self.y[1]):
            raise ValueError("x and y are [low, high], low below high")
        return self


class PhaseSettings(SettingsModel):
    """Which datasets are what, and where the beam is undeflected. Every dataset must be in the pipeline's `inputs`."""

    angle_x: DatasetPath = "dpc/angle_x"
    """Deflection in rad."""
    angle_y: DatasetPath = "dpc/angle_y"
    sum: DatasetPath = "dpc/sum"
    """All that was counted, for the absorption."""
    x: DatasetPath = "encoders/x"
    """Positions of the sample."""
    y: DatasetPath = "encoders/y"
    position_units: LengthUnit = "um"
    i0: DatasetPath | None = None
    """The beam monitor, to which the sum is normalised."""
    photon_energy: Positive
    """keV."""
    reference: Literal["median"] | RegionSettings = "median"
    """The undeflected, unabsorbed beam: the median of the scan, or of an empty region."""
    sign_x: Literal[1, -1] = 1
    """-1 when the detector's x runs against that of the positions."""
    sign_y: Literal[1, -1] = 1


def outputs(settings: PhaseSettings) -> tuple[Output, ...]:
    """Return phase, gradients and absorption, one value per index."""
    return (
        Output("phase", "rad", long_name="phase, integrated, without a plane"),
        Output("gradient_x", "rad/m", long_name="phase gradient along x"),
        Output("gradient_y", "rad/m", long_name="phase gradient along y"),
        Output("absorption", "1", long_name="absorption, -ln(transmission)"),
        flag_output("phase", FLAGS),
    )


def takes(settings: PhaseSettings) -> dict[str, str]:
    """Return the units of angles and positions."""
    places = dict.fromkeys((settings.x, settings.y), settings.position_units)
    return places | dict.fromkeys((settings.angle_x, settings.angle_y), "rad")


MODALITY = Modality(
    name="dpc_phase",
    settings=PhaseSettings,
    outputs=outputs,
    takes=takes,
    kernel="cluster_side.modalities.dpc_phase.kernel:load",
    packages=("numpy", "scipy"),
)
