"""Positions of a whole scan, light half: spikes, comparisons and maps.

    spikes         a position that does not fit to its neighbours on the line
    comparison     two instruments that measured the same axis: their correlation, scale, and what is left between them
    map            datasets by measured position, as weighted means in regular cells

Its pipeline has source {kind: scan}: one task for the whole scan, made of other pipelines' datasets.
"""

from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import DatasetName, LengthUnit, Positive, flag_output

FLAGS = {
    0: "no position: x or y is not known",
    1: "x or y is a spike: it does not fit to its neighbours on the line",
    2: "the position belongs to no cell of the map",
    3: "the weight is not above zero: the point counts nothing in the map",
}
"""Bit of flags/position -> what it says."""
AXES = {"axes": "grid_y grid_x"}
DatasetPath = Annotated[str, Field(pattern=r"^[^/]+/.+$")]


class ComparisonSettings(SettingsModel):
    """Two datasets that measured the same axis."""

    first: DatasetPath
    second: DatasetPath
    scale: FiniteFloat = 1.0
    """What one unit of `second` is in that of `first`: 0.001 for nanometres beside micrometres."""
    units: LengthUnit = "um"
    """The unit of `first`."""


class MapSettings(SettingsModel):
    """Regular cells over the measured positions, and what is drawn in them."""

    step: tuple[Positive, Positive]
    """Size of a cell along x and y, in the unit of the positions."""
    datasets: dict[DatasetName, DatasetPath] = Field(min_length=1)
    """Name -> dataset with one value per point."""
    weights: DatasetPath | None = None
    """What each point counts in its cell, such as counters/i0 for values that were normalised to it; without it, all the same."""
    fill: bool = False
    """Fill cells into which no point fell with the nearest one; `filled` says which."""


class PositionSettings(SettingsModel):
    """Which datasets are the positions, and what to compute of them. Every dataset must be in the pipeline's `inputs`."""

    x: DatasetPath = "encoders/x"
    y: DatasetPath = "encoders/y"
    position_units: LengthUnit = "um"
    spike: Positive = 8.0
    """A spike is further than this many robust deviations from its neighbours' median; 5 takes a good point in some thousand."""
    neighbours: int = Field(default=3, ge=2, le=50)
    """How many points on either side are used."""
    compare: dict[DatasetName, ComparisonSettings] = {}
    """Name of the axis -> two datasets."""
    map: MapSettings | None = None

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        taken = {"x", "y", "weight", "filled"} & (self.map.datasets.keys() if self.map else set())
        if taken:
            raise ValueError(f"map.datasets.{min(taken)}: that name is taken; choose another one")
        return self


def outputs(settings: PositionSettings) -> tuple[Output, ...]:
    """Return the flags, one value per comparison and quantity, and the maps with their axes."""
    unit = settings.position_units
    declared = [flag_output("position", FLAGS)]
    for name, pair in settings.compare.items():
        declared += [
            _of_scan(f"correlation/{name}", "1", f"correlation of {pair.first} and {pair.second}"),
            _of_scan(f"scale/{name}", "1", f"{pair.second} x scale / {pair.first}, the slope of a straight line"),
            _of_scan(f"difference/{name}", pair.units, f"{pair.second} x scale about that line, root mean square"),
        ]
    if settings.map:
        said = {"weight": ("1", "sum of weights in the cell")}
        said |= (
            {"filled": ("1", "1: the nearest value of some dataset stands in for one that is not there")}
            if settings.map.fill
            else {}
        )
        drawn = {name: (path, f"{path} by measured position") for name, path in settings.map.datasets.items()}
        declared += [replace(_of_scan(f"grid/{name}", "", words, AXES), like=path) for name, (path, words) in drawn.items()]
        declared += [_of_scan(f"grid/{name}", units, words, AXES) for name, (units, words) in said.items()]
        declared += [_of_scan(f"grid_{axis}", unit, f"{axis} of the cells' middles") for axis in "xy"]
    return tuple(declared)


def takes(settings: PositionSettings) -> dict[str, str]:
    """Return the unit of the positions, and of the first of two that are compared."""
    compared = {pair.first: pair.units for pair in settings.compare.values()}
    return compared | dict.fromkeys((settings.x, settings.y), settings.position_units)


def _of_scan(name: str, units: str, words: str, attributes: dict[str, str] | None = None) -> Output:
    return Output(name, units, per="scan", merge="first", long_name=words, attributes=attributes or {})


MODALITY = Modality(
    name="positions",
    settings=PositionSettings,
    outputs=outputs,
    takes=takes,
    kernel="cluster_side.modalities.positions.kernel:load",
    packages=("numpy", "scipy"),
)
