"""Encoders, light half: which column is which axis, and how its counts become a position.

position = counts x resolution x sign + offset        counts without the wrap-around of an n-bit counter
laboratory frame                                      skew and rotation of two axes, from the settings
"""

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from beamtide import units
from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import AnyUnit, DatasetName, LabSettings, PlaceUnit, axis_outputs, flag_output
from cluster_side.modalities.readings import Reading

FLAGS = {
    0: "no value: the trigger was lost, or the column holds NaN",
    1: "samples of the exposure were spikes and were left out",
    2: "two neighbouring samples differ by half the range of the counter: it may have left the range around `near`",
    3: "spikes were not looked for: there is one value per exposure; the modality `positions` looks among neighbours",
}
"""Bit of flags/* -> what it says."""


class AxisSettings(SettingsModel):
    """One axis: position = counts x resolution x sign + offset."""

    field: str
    """The column of the file that holds its counts."""
    resolution: FiniteFloat = Field(default=1.0, gt=0)
    """Length or angle of one count, in `units`."""
    sign: Literal[1, -1] = 1
    """-1 when the axis counts backwards."""
    offset: FiniteFloat = 0.0
    """Position at count 0, in `units`."""
    units: PlaceUnit = "um"
    bits: int | None = Field(default=None, ge=2, le=52)
    """The counter wraps around at 2**bits counts; leave it out if it does not, or if the electronics have unwrapped it."""
    near: FiniteFloat = 0.0
    """A position, in `units`, from which the axis is never further than half a counter range (matters with `bits`)."""
    spike: FiniteFloat | None = Field(default=None, gt=0)
    """Leave out samples further than this many robust deviations from the median of their exposure; 5 is usual."""


class ExtraSettings(SettingsModel):
    """A further column, passed through."""

    field: str
    """The column of the file."""
    units: AnyUnit
    scale: FiniteFloat = 1.0
    """What one count is, in `units`."""


class EncoderSettings(SettingsModel):
    """What the columns of an encoder file are."""

    axes: dict[DatasetName, AxisSettings] = Field(min_length=1)
    """Name (x, y, z, rotation …) -> axis; maps are drawn over "x" and "y"."""
    lab: LabSettings | None = None
    """How two of the axes are turned into the laboratory frame; leave it out when they are x and y already."""
    extra: dict[DatasetName, ExtraSettings] = {}
    """Name -> further column, such as i0."""

    @model_validator(mode="after")
    def _no_name_twice(self) -> Self:
        into = self.lab.into if self.lab else ()
        taken = {f"{name}{ending}" for name in (*self.axes, *into) for ending in ("", "_std", "_min", "_max")}
        if twice := sorted(taken & self.extra.keys()):
            raise ValueError(f"extra.{twice[0]} bears the name of an axis or its deviation; rename it")
        return self

    @model_validator(mode="after")
    def _lab_of_axes(self) -> Self:
        if self.lab is None:
            return self
        self.lab.check({name: axis.units for name, axis in self.axes.items()})
        angle = self.lab.angle
        if isinstance(angle, str) and (angle not in self.axes or units.kind_of(self.axes[angle].units) != units.ANGLE):
            raise ValueError(f"lab.angle: {angle} must be one of the axes, and measured in degrees or radians")
        return self


def outputs(settings: EncoderSettings) -> tuple[Output, ...]:
    """Return a dataset per axis with its flags; deviation, smallest and largest sample where a column holds several samples."""
    declared: list[Output] = []
    for name, axis in settings.axes.items():
        declared += [*axis_outputs(name, axis.units), flag_output(name, FLAGS)]
    if settings.lab:
        declared += settings.lab.outputs(settings.axes[settings.lab.axes[0]].units)
    declared += [Output(name, extra.units, long_name=name) for name, extra in settings.extra.items()]
    return tuple(declared)


def reads(settings: EncoderSettings) -> dict[str, Reading]:
    """Return in which units columns are wanted."""
    found = {
        extra.field: Reading(extra.units, extra.scale if "scale" in extra.model_fields_set else None, f"extra.{name}.scale")
        for name, extra in settings.extra.items()
    }
    for name, axis in settings.axes.items():
        said = axis.resolution if "resolution" in axis.model_fields_set else None
        found[axis.field] = Reading(axis.units, said, f"axes.{name}.resolution")
    return found


MODALITY = Modality(
    name="encoders",
    settings=EncoderSettings,
    outputs=outputs,
    reads=reads,
    kernel="cluster_side.modalities.encoders.kernel:load",
)
