"""Encoders, light half: which column is which axis, and how its counts become a position."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel

DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


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
    units: str = "um"


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
    extra: dict[DatasetName, ExtraSettings] = {}
    """Name -> further column, such as i0."""

    @model_validator(mode="after")
    def _no_name_twice(self) -> Self:
        taken = self.axes.keys() | {f"{name}_std" for name in self.axes}
        if twice := sorted(taken & self.extra.keys()):
            raise ValueError(f"extra.{twice[0]} bears the name of an axis or its deviation; rename it")
        return self


def outputs(settings: EncoderSettings) -> tuple[Output, ...]:
    """Return a dataset per axis, its deviation (only there where a column holds several samples per exposure), and extras."""
    declared: list[Output] = []
    for name, axis in settings.axes.items():
        declared.append(Output(name, axis.units, long_name=f"{name} position"))
        declared.append(Output(f"{name}_std", axis.units, long_name=f"{name} deviation within the exposure"))
    declared += [Output(name, extra.units, long_name=name) for name, extra in settings.extra.items()]
    return tuple(declared)


MODALITY = Modality(
    name="encoders",
    settings=EncoderSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.encoders.kernel:load",
)
