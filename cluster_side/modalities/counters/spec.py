"""Counters, light half: what one count is, what it reads without beam, and what to do about dead time and overload.

value = (dead-time corrected reading - dark) x gain [/ exposure] [/ another counter]
"""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import AnyUnit, DatasetName, LengthUnit, Positive, flag_output
from cluster_side.modalities.readings import Reading

FLAGS = {
    0: "no value: the reading is NaN, or the exposure is not a positive time",
    1: "overload: the reading reached the end of its range",
    2: "dead all the time: the rate is more than the dead time allows",
    3: "no dark level was given: what it reads without beam is still inside",
    4: "the counter that it is divided by is not above zero",
}
"""Bit of flags/* -> what it says. Bits 0, 1, 2 and 4 come with NaN."""
Names = Annotated[tuple[DatasetName, ...], Field(min_length=1)]


class CounterSettings(SettingsModel):
    """One counter or ADC channel."""

    field: str
    """The column of the file; of several samples per exposure the mean is taken."""
    units: AnyUnit
    """Of the result, such as counts, 1/s, A or V; before `normalise_to`."""
    gain: FiniteFloat = 1.0
    """What one unit of the reading is, in `units`."""
    dark: FiniteFloat | str | None = None
    """What it reads without beam: a number, or the column that measures it. Left out, all is flagged; 0 says "nothing"."""
    overload: FiniteFloat | None = None
    """A reading, positive or negative, from which on the electronics are overloaded."""
    dead_time: Positive | None = None
    """Seconds per event in which a scaler counts no other (non-paralysable); needs `exposure`."""
    rate: bool = False
    """Divide by the exposure, to have something per second; needs `exposure`."""
    normalise_to: DatasetName | None = None
    """Another counter by whose value this one is divided."""


class ReferenceSettings(SettingsModel):
    """Beam position from four diodes: x = scale_x (right - left) / (right + left), y likewise; each side may be two quadrants."""

    left: Names
    right: Names
    bottom: Names
    top: Names
    scale_x: FiniteFloat
    """Length per unit of contrast, from a scan of the monitor through the beam."""
    scale_y: FiniteFloat
    units: LengthUnit = "um"


class CountersSettings(SettingsModel):
    """What the columns of scalers and ADCs are."""

    counters: dict[DatasetName, CounterSettings] = Field(min_length=1)
    """Name (i0, diode …) -> counter; other pipelines take them as "PIPELINE/NAME"."""
    exposure: Positive | str | None = None
    """Seconds, or the column that measures them."""
    beam: ReferenceSettings | None = None
    """A beam position monitor; gives beam_x, beam_y and beam_sum."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, one in self.counters.items():
            if self.exposure is None and (one.rate or one.dead_time is not None):
                raise ValueError(f"counters.{name}: rate and dead_time need `exposure`, in seconds or as the name of a column")
            if one.normalise_to is not None and one.normalise_to not in self.counters:
                raise ValueError(f"counters.{name}.normalise_to: there is no counter {one.normalise_to!r}")
            if one.normalise_to is not None and self.counters[one.normalise_to].normalise_to is not None:
                raise ValueError(
                    f"counters.{name}.normalise_to: {one.normalise_to} is itself divided by another; name a plain one"
                )
        sides = (*self.beam.left, *self.beam.right, *self.beam.bottom, *self.beam.top) if self.beam else ()
        if missing := sorted(set(sides) - self.counters.keys()):
            raise ValueError(f"beam: there is no counter {missing[0]!r}")
        if self.beam and (taken := sorted({"beam_x", "beam_y", "beam_sum"} & self.counters.keys())):
            raise ValueError(f"counters.{taken[0]} bears a name of the beam position; rename it")
        return self


def outputs(settings: CountersSettings) -> tuple[Output, ...]:
    """Return a dataset per counter with its flags, and the beam position."""
    declared: list[Output] = []
    for name, one in settings.counters.items():
        unit = one.units if one.normalise_to is None else _ratio(one.units, settings.counters[one.normalise_to].units)
        declared += [Output(name, unit, long_name=name), flag_output(name, FLAGS)]
    if settings.beam:
        declared += [Output(f"beam_{axis}", settings.beam.units, long_name=f"beam position {axis}") for axis in ("x", "y")]
        declared.append(Output("beam_sum", settings.counters[settings.beam.left[0]].units, long_name="all four diodes"))
    return tuple(declared)


def _ratio(one: str, other: str) -> str:
    return "1" if one == other else f"{one}/({other})"


def reads(settings: CountersSettings) -> dict[str, Reading]:
    """Return in which units columns are wanted."""
    found: dict[str, Reading] = {}
    for name, one in settings.counters.items():
        said = one.gain if "gain" in one.model_fields_set or one.rate else None  # a rate is of counts, whatever they are
        found[one.field] = Reading(one.units, said, f"counters.{name}.gain")
    if isinstance(settings.exposure, str):
        found[settings.exposure] = Reading("s", key="exposure")
    return found


MODALITY = Modality(
    name="counters",
    settings=CountersSettings,
    outputs=outputs,
    reads=reads,
    kernel="cluster_side.modalities.counters.kernel:load",
)
