"""DPC, light half: moments of each frame, or contrasts of a segmented detector, and the angle by which the beam was deflected.

    angle_x = (centre of mass - reference) x pixel_size / distance          from frames
    angle_x = scale_x x (right - left) / (right + left)                     from segments

The phase needs all points of a scan: that is the modality `dpc_phase`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import Positive, flag_output

FLAGS = {
    0: "no value: nothing was counted, or a segment is NaN",
    1: "pixels that are no measurement (NaN, marked by the detector, at the end of their range) were left out",
    2: "no dark level was given for the segments: what they read without beam is still inside",
}
"""Bit of flags/frame -> what it says."""
Fields = Annotated[tuple[str, ...], Field(min_length=1)]
Pair = tuple[FiniteFloat, FiniteFloat]


class GeometrySettings(SettingsModel):
    """From pixels to angles."""

    pixel_size: Positive
    """m."""
    distance: Positive
    """m, from the sample to the detector."""


class DiscSettings(SettingsModel):
    """The bright disc of the direct beam; what lies outside is the dark field."""

    x: FiniteFloat
    """Its middle, in pixels; 0 is the middle of the first one."""
    y: FiniteFloat
    radius: Positive
    """In pixels."""


class SegmentSettings(SettingsModel):
    """A segmented detector; a segment may stand on two sides (quadrants)."""

    left: Fields
    right: Fields
    bottom: Fields
    top: Fields
    dark: dict[str, FiniteFloat] | FiniteFloat | None = None
    """What the segments read without beam: one number, or one each, by column. Left out, every value is flagged."""
    gain: dict[str, Positive] = {}
    """By what a column is multiplied so that all segments count alike; 1 where it is not named."""
    scale_x: FiniteFloat = 1.0
    """Angle (rad) per unit of contrast, from a scan of the detector through the empty beam."""
    scale_y: FiniteFloat = 1.0

    @model_validator(mode="after")
    def _of_these_segments(self) -> Self:
        known = {*self.left, *self.right, *self.bottom, *self.top}
        for name, said in (("dark", self.dark), ("gain", self.gain)):
            if isinstance(said, dict) and (odd := sorted(said.keys() - known)):
                raise ValueError(f"{name}.{odd[0]} is no segment; segments are {', '.join(sorted(known))}")
        if isinstance(self.dark, dict) and (missing := sorted(known - self.dark.keys())):
            raise ValueError(f"dark: {missing[0]} has none; give one to every segment, 0 where it reads nothing without beam")
        return self


class DpcSettings(SettingsModel):
    """What the frames are, or the columns of a segmented detector."""

    frames: str | None = "frames"
    """The array of frames (exposure, y, x); null for a segmented detector."""
    method: Literal["centre_of_mass", "fourier_shift"] = "centre_of_mass"
    """"fourier_shift" fits each frame's shift against calibration "reference", the empty beam: steadier for a structured beam."""
    geometry: GeometrySettings | None = None
    """For angles; without it there are pixels only."""
    reference: Pair | None = None
    """(x, y) of the undeflected beam in pixels; left out, angles count from the middle of the frame."""
    disc: DiscSettings | None = None
    """For the dark field."""
    segments: SegmentSettings | None = None
    """Instead of frames."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.frames is None) == (self.segments is None):
            raise ValueError("give the array of the frames, or frames: null and segments")
        if self.segments is not None and (self.geometry or self.disc or self.reference or self.method != "centre_of_mass"):
            raise ValueError("segments have no pixels: geometry, disc, reference and method belong to frames")
        return self


def outputs(settings: DpcSettings) -> tuple[Output, ...]:
    """Return the sum, the deflection, and what else a frame or the segments tell."""
    declared = [Output("sum", "counts", long_name="all that was counted"), flag_output("frame", FLAGS)]
    if settings.segments is not None:
        declared += [Output(f"contrast_{axis}", "1", long_name=f"contrast along {axis}") for axis in ("x", "y")]
    else:
        what = "centre of mass" if settings.method == "centre_of_mass" else "shift of the beam"
        declared += [Output(f"com_{axis}", "px", long_name=f"{what} along {axis}") for axis in ("x", "y")]
        declared += [Output(f"width_{axis}", "px", long_name=f"r.m.s. width along {axis}") for axis in ("x", "y")]
    if settings.method == "fourier_shift":
        declared.append(Output("amplitude", "1", long_name="brightness against the empty beam"))
    if settings.disc is not None:
        declared.append(Output("dark_field", "1", long_name="part that was scattered out of the bright disc"))
    if settings.segments is not None or settings.geometry is not None:
        declared += [Output(f"angle_{axis}", "rad", long_name=f"deflection along {axis}") for axis in ("x", "y")]
    return tuple(declared)


MODALITY = Modality(
    name="dpc",
    settings=DpcSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.dpc.kernel:load",
)
