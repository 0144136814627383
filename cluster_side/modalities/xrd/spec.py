"""XRD, light half: how frames are integrated to patterns.

The geometry is the user's own pyFAI file (calibration "poni"); a mask, dark, flat and background image may come with it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, PositiveInt, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import together

Range = tuple[FiniteFloat, FiniteFloat]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Unit = Literal["q_nm^-1", "q_A^-1", "2th_deg", "2th_rad", "r_mm"]
AXES: dict[str, tuple[str, str]] = {
    "q_nm^-1": ("q", "1/nm"),
    "q_A^-1": ("q", "1/angstrom"),
    "2th_deg": ("2theta", "deg"),
    "2th_rad": ("2theta", "rad"),
    "r_mm": ("r", "mm"),
}
"""Unit -> name and unit of the radial axis, as NeXus spells them."""


class SigmaClip(SettingsModel):
    """Leave out pixels that lie too far from the mean of their bin, such as Bragg spots."""

    threshold: FiniteFloat = Field(default=5.0, gt=0)
    """In standard deviations within the bin."""
    cycles: PositiveInt = 5
    """At most so many times."""


class XrdSettings(SettingsModel):
    """How frames are integrated."""

    engine: Literal["fast", "pyfai"] = "fast"
    """"fast": pyFAI's matrix, prepared once, applied pixel by pixel; "pyfai": pyFAI itself, the reference."""
    opencl: bool = False
    """engine: pyfai only: integrate on a GPU through OpenCL."""
    frames: str = "frames"
    """The array of images in the frames of a task."""
    shape: tuple[PositiveInt, PositiveInt] | None = None
    """Rows and columns of an image, where neither the poni file nor a mask says it."""
    orientation: Literal[1, 2, 3, 4] | None = None
    """Where pixel 0 lies, as in poni 2.1: 3 is pyFAI's default, 2 suits files of Fit2D and Dioptas (image flipped up-down)."""
    unit: Unit = "q_nm^-1"
    """The radial axis."""
    points: PositiveInt = 1000
    """Radial bins."""
    radial_range: Range | None = None
    """From and to, in the unit of the radial axis; default: the whole detector."""
    azimuth_range: Range | None = None
    """From and to in degree; default: the full circle."""
    cake: PositiveInt | None = None
    """So many azimuthal bins for a second, azimuthally resolved pattern."""
    split: Literal["no", "bbox", "full"] = "bbox"
    """How a pixel that covers several bins is shared."""
    solid_angle: bool = True
    """Correct for the solid angle of the pixels."""
    polarization: Annotated[FiniteFloat, Field(ge=-1, le=1)] | None = None
    """Polarization factor of the beam, 0.95 to 0.99 at a synchrotron; default: no correction."""
    dummy: FiniteFloat | None = None
    """Pixels with this value were not measured."""
    delta_dummy: FiniteFloat = Field(default=0.0, ge=0)
    """Pixels that close to `dummy`, too."""
    overflow: FiniteFloat | None = None
    """Pixels with this value or more are saturated; the largest number of an unsigned image always is."""
    sigma_clip: SigmaClip | None = None
    """Leave out outliers within each bin; needs split: no."""
    rois: dict[Name, Range] = {}
    """Name -> radial range whose mean intensity becomes a map."""
    peaks: dict[Name, Range] = {}
    """Name -> radial range of one peak of a phase: area above a straight background, position and width become maps."""
    background_scale: FiniteFloat = Field(default=1.0, ge=0)
    """The pattern of calibration.background is subtracted, times this."""
    panels: dict[str, tuple[int, int]] = {}
    """Array of the frames -> row and column at which it lies in the whole image, for a detector that writes its modules apart."""
    normalise_to: str | None = None
    """The beam monitor, as "pipeline/dataset" of the pipeline's inputs; intensities are multiplied by reference / monitor."""
    normalise_reference: FiniteFloat | None = Field(default=None, gt=0)
    """The monitor value to which intensities are scaled."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self, "normalise_to", "normalise_reference")
        if self.sigma_clip and (self.split != "no" or self.cake):
            raise ValueError("sigma_clip needs split: no, and no cake")
        if self.opencl and self.engine != "pyfai":
            raise ValueError("opencl needs engine: pyfai")
        named = {"radial_range": self.radial_range, "azimuth_range": self.azimuth_range, **self.rois, **self.peaks}
        for name, limits in named.items():
            if limits and not limits[0] < limits[1]:
                raise ValueError(f"{name}: {limits[0]:g} to {limits[1]:g} is not a range")
        return self


def outputs(settings: XrdSettings) -> tuple[Output, ...]:
    """Return pattern, its uncertainty and axis, maps, and what merges over the scan."""
    scaled = f", scaled to {settings.normalise_to} = {settings.normalise_reference}" if settings.normalise_to else ""
    applied = {
        "normalization_applied": "true",
        "monitor_applied": str(settings.normalise_to is not None).lower(),
        "solid_angle_applied": str(settings.solid_angle).lower(),
        "polarization_applied": str(settings.polarization is not None).lower(),
    }
    axis, unit = AXES[settings.unit]
    return (
        Output("azint1d/I", "arbitrary units", long_name="intensity", attributes=applied),
        Output("azint1d/I_errors", "arbitrary units", long_name="estimated intensity error"),
        Output("azint2d/I", "arbitrary units", long_name="intensity", attributes=applied),
        Output("azint2d/I_errors", "arbitrary units", long_name="estimated intensity error"),
        Output("roi/*", "arbitrary units", long_name=f"mean intensity{scaled}"),
        Output("roi_sigma/*", "arbitrary units", long_name=f"standard uncertainty of the mean intensity{scaled}"),
        Output("peak_area/*", f"arbitrary units*{unit}", long_name=f"area of the peak above its background{scaled}"),
        Output("peak_position/*", unit, long_name="centre of mass of the peak"),
        Output("peak_width/*", unit, long_name="standard deviation of the peak"),
        Output("total_counts", "counts", long_name="counts of all valid pixels"),
        Output("pixels_lost", "1", long_name="pixels in use that were saturated or not measured"),
        *_once(axis, unit),
    )


def _once(axis: str, unit: str) -> tuple[Output, ...]:
    return (
        Output("azint1d/radial_axis", unit, per="scan", merge="first", long_name=axis),
        Output("azint1d/norm", "arbitrary units", per="scan", merge="first", long_name=NORM),
        Output("azint2d/radial_axis", unit, per="scan", merge="first", long_name=axis),
        Output("azint2d/azimuthal_axis", "deg", per="scan", merge="first", long_name="azimuthal bin center"),
        Output("azint2d/norm", "arbitrary units", per="scan", merge="first", long_name=NORM),
        Output("beam/wavelength", "angstrom", per="scan", merge="first", long_name="wavelength"),
        Output("beam/energy", "keV", per="scan", merge="first", long_name="photon energy"),
        *(Output(f"scan/{name}", "1", per="scan", merge="sum", long_name=f"{name} of all frames") for name in SUMS),
    )


NORM = "effective number of pixels contributing to the corresponding bin"
"""As the NeXus definitions NXazint1d and NXazint2d want it, like the other names of "azint1d/…" and "azint2d/…"."""
SUMS = ("signal", "variance", "norm")

MODALITY = Modality(
    name="xrd",
    settings=XrdSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.xrd.kernel:load",
    needs=("poni",),
    packages=("numpy", "pyFAI"),
    prepare="cluster_side.modalities.xrd.model:prepare",
    layout=3,
    files="cluster_side.modalities.xrd.poni_text:files",
    explain="cluster_side.modalities.xrd.explain:explain",
    explains="poni",
)
