"""Encoders, light half: which column is which axis, and how its counts become a position.

position = counts x resolution x sign + offset        counts without the wrap-around of an n-bit counter
laboratory frame                                      skew and rotation of two axes, from the settings
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from beamtide import units
from beamtide.errors import BadInput
from cluster_side.modalities.base import Modality, Output, SettingsModel

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
FLAGS = {
    0: "no value: the trigger was lost, or the column holds NaN",
    1: "samples of the exposure were spikes and were left out",
    2: "two neighbouring samples differ by half the range of the counter: it may have left the range around `near`",
}
"""Bit of flags/* -> what it says."""


def _of_place(unit: str) -> str:
    try:
        if units.kind_of(unit) in (units.LENGTH, units.ANGLE):
            return units.canonical(unit)
    except BadInput:
        pass
    raise ValueError(
        f"{unit!r} is no unit of a position; use one of {', '.join((*units.known('length'), *units.known('angle')))}"
    )


PlaceUnit = Annotated[str, AfterValidator(_of_place)]


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


class LabSettings(SettingsModel):
    """Two stage axes turned into the laboratory frame.

    With angle r: x = u cos r + v sin r, y = v cos r - u sin r, after v was made perpendicular to u.
    """

    axes: tuple[DatasetName, DatasetName]
    """The axes u and v, of `axes`, in the same unit."""
    into: tuple[DatasetName, DatasetName] = ("x", "y")
    """The names of the results."""
    angle: FiniteFloat | DatasetName
    """r: a number in degrees, or the axis that measures it. Required: a turned axis without its angle is a wrong map."""
    skew: FiniteFloat = Field(default=0.0, gt=-45, lt=45)
    """By how many degrees the angle from u to v is smaller than 90."""


class ExtraSettings(SettingsModel):
    """A further column, passed through."""

    field: str
    """The column of the file."""
    units: str
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
        if twice := sorted(set(into) & self.axes.keys()):
            raise ValueError(f"lab.into: {twice[0]} is an axis already; rename the axis, the laboratory frame has x and y")
        return self

    @model_validator(mode="after")
    def _lab_of_axes(self) -> Self:
        if self.lab is None:
            return self
        angle = (self.lab.angle,) if isinstance(self.lab.angle, str) else ()
        if missing := [name for name in (*self.lab.axes, *angle) if name not in self.axes]:
            raise ValueError(f"lab: there is no axis {missing[0]!r}; axes are {', '.join(self.axes)}")
        if len({self.axes[name].units for name in self.lab.axes}) > 1 or len({*self.lab.axes, *self.lab.into}) < 4:
            raise ValueError("lab: axes must be two different ones with the same unit, and into two other names")
        if angle and units.kind_of(self.axes[angle[0]].units) != units.ANGLE:
            raise ValueError(f"lab.angle: {angle[0]} is measured in {self.axes[angle[0]].units}, not in degrees or radians")
        return self


def outputs(settings: EncoderSettings) -> tuple[Output, ...]:
    """Return a dataset per axis with its flags; deviation, smallest and largest sample where a column holds several samples."""
    reasons = {f"bit_{bit}": reason for bit, reason in FLAGS.items()}
    declared: list[Output] = []
    for name, axis in settings.axes.items():
        declared += _axis(name, axis.units, f"{name} position")
        declared.append(Output(f"flags/{name}", "1", long_name=f"what is wrong with {name}", attributes=reasons))
    if settings.lab:
        for name in settings.lab.into:
            declared.append(
                Output(name, settings.axes[settings.lab.axes[0]].units, long_name=f"{name} position, laboratory frame")
            )
    declared += [Output(name, extra.units, long_name=name) for name, extra in settings.extra.items()]
    return tuple(declared)


def _axis(name: str, unit: str, title: str) -> Iterable[Output]:
    yield Output(name, unit, long_name=title)
    for ending, what in (("std", "deviation"), ("min", "smallest value"), ("max", "largest value")):
        yield Output(f"{name}_{ending}", unit, long_name=f"{name} {what} within the exposure")


MODALITY = Modality(
    name="encoders",
    settings=EncoderSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.encoders.kernel:load",
)
