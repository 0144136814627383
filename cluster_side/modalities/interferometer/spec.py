"""Interferometers, light half: units of the samples, their times, and the drift of the reference mirror.

position = sign x (counts x resolution | phase / 2 pi x fringe) + offset - (reference - its position at rest)
mean over the gate                                    of the line through the samples, where their times and the gate are known
laboratory frame                                      skew and rotation of two axes, from the settings
"""

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import DatasetName, LabSettings, LengthUnit, Positive, axis_outputs, flag_output
from cluster_side.modalities.readings import Reading

FLAGS = {
    0: "no value: a sample or its time is NaN, or the clock was restarted within the exposure",
    1: "the coarse position lies more than a quarter of a fringe away: the fringe may be wrong",
    2: "neighbouring samples differ by half a range of the counter, or by almost half a turn: one may be missing in between",
    3: "no reference position: its drift could not be taken off",
    4: "whole turns of the phase were lost, here or before: samples are missing, or the axis was too fast for them",
}
"""Bit of flags/* -> what it says. Bits 3 and 4 come with NaN, and bit 2 for phases."""


class LaserBeamSettings(SettingsModel):
    """One laser beam. Give `resolution` for an instrument that counts or gives lengths, `fringe` for one that gives phases.

    Which fringe a phase belongs to is said by `coarse`, or has been counted from the first sample of the capture (`continuous`).
    """

    field: str
    """The column of its samples (exposure, sample), or of one value per exposure."""
    resolution: Positive | None = None
    """Length of one count, in `units`."""
    fringe: Positive | None = None
    """Length per turn of the phase (2 pi), in `units`: half the wavelength for a beam that goes there and back, a quarter for two
    passes."""
    coarse: str | None = None
    """For phases: the column, or input such as encoders/x, that says which fringe it is; needs to be good to a quarter of one."""
    coarse_scale: FiniteFloat = 1.0
    """What one unit of `coarse` is, in `units`: 1000 for micrometres in nanometres."""
    continuous: bool = False
    """For phases: the source has format samples and names this column in options.phases, which counts whole turns from the first
    sample of the capture; positions are relative to that one."""
    sign: Literal[1, -1] = 1
    """-1 when the instrument counts backwards."""
    offset: FiniteFloat = 0.0
    """Position at count or phase 0, in `units`."""
    bits: int | None = Field(default=None, ge=2, le=52)
    """The counter wraps around at 2**bits counts."""
    near: FiniteFloat = 0.0
    """A position, in `units`, from which the axis is never further than half a counter range (matters with `bits`)."""
    reference: DatasetName | None = None
    """Another axis, on the mirror that this one is measured against: its movement is taken off."""
    reference_at_rest: FiniteFloat = 0.0
    """Where that mirror stands when nothing drifts, in `units`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.resolution is None) == (self.fringe is None):
            raise ValueError("give resolution (an instrument that counts) or fringe (one that gives phases), and not both")
        if self.fringe is not None and (self.coarse is None) != self.continuous:
            raise ValueError(
                "a phase says nothing about which fringe it is: name a coarse position, such as encoders/x, or set continuous: "
                "true for phases whose turns were counted along the whole capture, and not both"
            )
        if self.fringe is not None and self.bits is not None:
            raise ValueError("bits belong to an instrument that counts; a phase wraps around at 2 pi by itself")
        return self


class InterferometerSettings(SettingsModel):
    """What the columns of an interferometer's file are."""

    axes: dict[DatasetName, LaserBeamSettings] = Field(min_length=1)
    """Name (x, y, mirror …) -> beam."""
    units: LengthUnit = "nm"
    """Of all axes."""
    time: str | None = None
    """The column (exposure, sample) with the times of the samples, where they are not evenly spaced (then: trapezoids)."""
    gate: tuple[str, str] | None = None
    """The columns with start and end of each exposure, on the clock of `time`: [gate_start, gate_end] for format samples. Samples
    outside of the gate only say what the position was at its ends."""
    lab: LabSettings | None = None
    """How two of the axes are turned into the laboratory frame; the angle may also be an input, such as encoders/rotation."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, axis in self.axes.items():
            if axis.reference is not None and (
                axis.reference not in self.axes or self.axes[axis.reference].reference is not None
            ):
                raise ValueError(
                    f"axes.{name}.reference: {axis.reference!r} must be another axis, without a reference of its own"
                )
        if self.gate is not None and self.time is None:
            raise ValueError("gate needs the times of the samples: name their column as time")
        if self.lab is not None:
            self.lab.check(dict.fromkeys(self.axes, self.units))
        return self


def outputs(settings: InterferometerSettings) -> tuple[Output, ...]:
    """Return a dataset per axis with its flags; deviation, smallest and largest sample where there are several."""
    declared: list[Output] = []
    for name in settings.axes:
        declared += [*axis_outputs(name, settings.units), flag_output(name, FLAGS)]
    if settings.lab:
        declared += settings.lab.outputs(settings.units)
    return tuple(declared)


def reads(settings: InterferometerSettings) -> dict[str, Reading]:
    """Return in which units columns are wanted: lengths for what is counted, radians for phases."""
    return {
        axis.field: Reading(settings.units, axis.resolution, f"axes.{name}.resolution")
        if axis.resolution is not None
        else Reading("rad")
        for name, axis in settings.axes.items()
    }


MODALITY = Modality(
    name="interferometer",
    settings=InterferometerSettings,
    outputs=outputs,
    reads=reads,
    kernel="cluster_side.modalities.interferometer.kernel:load",
)
