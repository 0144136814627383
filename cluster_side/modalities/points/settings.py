"""Settings of motor stages, light half: names, units, and how two axes are turned into the laboratory frame."""

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, FiniteFloat

from beamtide import units
from beamtide.errors import BadInput
from cluster_side.modalities.base import Output, SettingsModel

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Positive = Annotated[FiniteFloat, Field(gt=0)]
ENDINGS = {"std": "deviation", "min": "smallest value", "max": "largest value"}
"""The statistics of the samples of an exposure besides their mean."""


def unit_of(*kinds: str) -> AfterValidator:
    """Return a check that a text is a unit of one of these kinds; it comes out in one spelling."""

    def check(unit: str) -> str:
        try:
            if units.kind_of(unit) in kinds:
                return units.canonical(unit)
        except BadInput:
            pass
        allowed = ", ".join(name for kind in kinds for name in units.known(kind))
        raise ValueError(f"{unit!r} is no unit of {' or '.join(kinds)}; use one of {allowed}")

    return AfterValidator(check)


def _any_unit(unit: str) -> str:
    try:
        units.kind_of(unit)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return units.canonical(unit)


AnyUnit = Annotated[str, AfterValidator(_any_unit)]
PlaceUnit = Annotated[str, unit_of(units.LENGTH, units.ANGLE)]
LengthUnit = Annotated[str, unit_of(units.LENGTH)]


def together(settings: SettingsModel, one: str, other: str) -> None:
    """Raise ValueError if one of two settings is given without the other."""
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"{one} and {other} go together; give both or neither")


class LabSettings(SettingsModel):
    """Two stage axes turned into the laboratory frame.

    With angle r: x = u cos r + v sin r, y = v cos r - u sin r, after v was made perpendicular to u.
    """

    axes: tuple[DatasetName, DatasetName]
    """The axes u and v, of `axes`, in the same unit."""
    into: tuple[DatasetName, DatasetName] = ("x", "y")
    """The names of the results."""
    angle: FiniteFloat | str
    """r: a number in degrees, or the axis that measures it. Required: a turned axis without its angle is a wrong map."""
    skew: FiniteFloat = Field(default=0.0, gt=-45, lt=45)
    """By how many degrees the angle from u to v is smaller than 90."""

    def check(self, of_axes: Mapping[str, str]) -> None:
        """Raise ValueError for what these axes (name -> unit) cannot be turned by."""
        if missing := [name for name in self.axes if name not in of_axes]:
            raise ValueError(f"lab: there is no axis {missing[0]!r}; axes are {', '.join(of_axes)}")
        if len({of_axes[name] for name in self.axes}) > 1 or len({*self.axes, *self.into}) < 4:
            raise ValueError("lab: axes must be two different ones with the same unit, and into two other names")
        if twice := sorted(set(self.into) & of_axes.keys()):
            raise ValueError(f"lab.into: {twice[0]} is an axis already; rename the axis, the laboratory frame has x and y")

    def outputs(self, unit: str) -> Iterable[Output]:
        """Yield what is said of the two positions in the laboratory frame; `unit` is that of the axes."""
        return (Output(name, unit, long_name=f"{name} position, laboratory frame") for name in self.into)


def axis_outputs(name: str, unit: str) -> Iterable[Output]:
    """Yield the outputs of one axis: its position, and the statistics of the samples of an exposure."""
    yield Output(name, unit, long_name=f"{name} position")
    for ending, what in ENDINGS.items():
        yield Output(f"{name}_{ending}", unit, long_name=f"{name} {what} within the exposure")


def flag_output(name: str, reasons: Mapping[int, str]) -> Output:
    """Return the flags of a dataset: each bit stands for a reason, and the attributes say which."""
    told = {f"bit_{bit}": reason for bit, reason in reasons.items()}
    return Output(f"flags/{name}", "1", long_name=f"what is wrong with {name}", attributes=told)
