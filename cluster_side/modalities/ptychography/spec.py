"""Ptychography, light half: where the geometry comes from, what is refined, and by which recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, PositiveInt, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel

Length = Annotated[FiniteFloat, Field(gt=0)]
Pixels = Annotated[int, Field(ge=8, le=8192)]


class Optics(SettingsModel):
    """What the probe is before the first iteration. Lengths in metres."""

    kind: Literal["auto", "mean", "aperture", "kb", "fzp", "former"] = "auto"
    """"auto": found by trying defoci; "mean": the mean frame in focus, or out of it by `defocus`; "aperture", "kb", "fzp": from
    the optics; "former": the calibration file "probe"."""
    defocus: FiniteFloat = 0.0
    """From focus to sample, in metres."""
    diameter: Length | None = None
    """Of the aperture or the zone plate."""
    outer_zone: Length | None = None
    """Width of the zone plate's outermost zone."""
    stop: FiniteFloat = Field(default=0.0, ge=0)
    """Diameter of the zone plate's central stop."""
    aperture_y: Length | None = None
    """Of the vertical KB mirror."""
    aperture_x: Length | None = None
    """Of the horizontal KB mirror."""
    focal_y: Length | None = None
    """Focal length of the vertical KB mirror."""
    focal_x: Length | None = None
    """Focal length of the horizontal KB mirror."""

    @property
    def unknown(self) -> bool:
        """Whether it has to be found: nobody said what it is, nor how far from focus the sample is."""
        return self.kind == "auto" and self.defocus == 0.0

    def length(self, name: str) -> float:
        """Return a length that this kind of optics has."""
        return float(getattr(self, name))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needs = {
            "aperture": ("diameter",),
            "kb": ("aperture_y", "aperture_x", "focal_y", "focal_x"),
            "fzp": ("diameter", "outer_zone"),
        }
        if missing := [name for name in needs.get(self.kind, ()) if getattr(self, name) is None]:
            raise ValueError(f"probe {self.kind} needs {' and '.join(missing)}, in metres")
        return self


class Refine(SettingsModel):
    """What follows the frames besides object and probe."""

    positions_after: int | None = Field(default=None, ge=0)
    """Iterations of each LSQML stage before positions may move; leave out to keep them."""
    positions_bound: Length = 4.0
    """How far a position may move, in object pixels."""
    flux: bool = False
    """Whether each exposure has an intensity of its own."""
    background: bool = False
    """Whether the detector sees light that never met the sample."""


class PtychographySettings(SettingsModel):
    """How a scan is reconstructed."""

    positions: tuple[str, str] | Literal["file"] = "file"
    """The datasets of the vertical and the horizontal position, as "pipeline/dataset"; or "file": the frames' own file."""
    positions_unit: Literal["nm", "um", "mm", "m"] = "um"
    """Of the positions that come from a pipeline."""
    flip: tuple[Literal[-1, 1], Literal[-1, 1]] = (1, 1)
    """Signs (vertical, horizontal) that turn positions into movements of the beam over the sample, along rows and columns."""
    energy: FiniteFloat | None = None
    """Photon energy in keV; leave out what the file knows."""
    distance: FiniteFloat | None = None
    """From sample to detector in metres."""
    detector_pixel: FiniteFloat | None = None
    """In micrometres."""
    source: Length | None = None
    """Near field: from focus to sample in metres. Leave out for the far field."""
    centre: Literal["auto", "corner"] | tuple[FiniteFloat, FiniteFloat] = "auto"
    """The pixel (row, column) of the direct beam; "auto": found in the mean frame; "corner": zero frequency is pixel (0, 0)."""
    crop: Pixels | None = None
    """Detector pixels to use, each way, around the centre."""
    rebin: Literal[1, 2, 4, 8] = 1
    """Detector pixels that become one, each way."""
    upsample: Literal[1, 2, 4] = 1
    """Computed pixels per detector pixel, each way: for a probe that is wider than the detector can resolve."""
    saturation: Length | None = None
    """Counts at which a pixel is not to be believed."""
    probe: Optics = Optics()
    """What the probe is before the first iteration."""
    modes: int = Field(default=3, ge=1, le=20)
    """Incoherent modes of the probe."""
    recipe: str = "RAAR 30 -> LSQML 30"
    """Engines and iterations: DM, RAAR(0.8), ePIE, rPIE(0.05, batch 8), LSQML(batch 64)."""
    probe_after: int = Field(default=2, ge=0)
    """Iterations before the probe may change."""
    subpixel: bool = False
    """Whether ePIE, rPIE and LSQML put the probe between pixels, at twice the cost; they do where positions move."""
    amplitude: tuple[FiniteFloat, FiniteFloat] | None = None
    """Least and largest amplitude of the object (vacuum: 1)."""
    object_radius: Length | None = None
    """Further than this from the probe's middle at every position, in object pixels, the object is vacuum."""
    probe_radius: Length | None = None
    """Beyond this radius, in object pixels, the probe is dark."""
    probe_power: Length | None = None
    """Photons per exposure in the probe, where they are known (a frame without sample); leave out otherwise."""
    refine: Refine = Refine()
    """What else follows the frames."""
    every: PositiveInt = 10
    """Iterations between two previews."""
    frc: bool = False
    """Whether to reconstruct two halves as well, and tell how far they agree; costs as much again."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        from cluster_side.modalities.ptychography.recipe import parse

        parse(self.recipe)
        if self.source is not None and (self.subpixel or self.refine.positions_after is not None):
            raise ValueError(
                "subpixel and refine.positions_after move the probe; in the near field (source) the sample moves: leave them out"
            )
        if self.amplitude is not None and not 0 <= self.amplitude[0] < self.amplitude[1]:
            raise ValueError("amplitude: give the least and then the largest amplitude, neither negative")
        return self


AXES = {"axes": "object_y object_x"}
QUALITY, LIVE = "quality", "quality/live"
"""Groups of what is to be thought of the result, and of what was shown last while the scan was measured."""
SAID = {
    "verdict": "converged, did not converge, or cannot tell",
    "advice": "what to try where it did not converge",
    "positions": "whether refined positions are better than measured ones",
}
FIGURES = {
    "explained": "share of what distinguishes frames that is explained in frames that were left out",
    "agreement": "correlation of the objects of two halves of the scan, at low frequencies",
    "misfit": "misfit of amplitudes² / measured counts of the result",
    "misfit_left_out": "the same in frames that were left out, of an object made anew of the others",
    "misfit_of_mean": "the same of who knows only the mean frame",
    "misfit_falling": "share of what is explained that it takes some more iterations to explain",
    "scale_smaller": "misfit of frames that were left out with positions nearer together, relative",
    "scale_larger": "misfit of frames that were left out with positions further apart, relative",
    "other_axes": "misfit of frames that were left out with other axes of the positions, relative",
    "refined_positions": "misfit of frames that were left out with refined positions, relative to measured ones",
    **{f"{name}_error": "its standard error" for name in ("scale_smaller", "scale_larger", "other_axes", "refined_positions")},
    "rest": "share of what distinguishes frames, beyond counting statistics, that the result leaves unexplained",
    "signal": "share of what distinguishes frames from their mean that is more than counting statistics",
}


def outputs(settings: PtychographySettings) -> tuple[Output, ...]:
    """Return object, probe, errors and positions, and the correlation of halves where it was asked for."""
    whole = (
        Output("object", "", per="scan", merge="first", long_name="complex transmission, ramp removed"),
        Output("object_phase", "rad", per="scan", merge="first", long_name="phase of the object", attributes=AXES),
        Output("object_amplitude", "", per="scan", merge="first", long_name="amplitude of the object", attributes=AXES),
        Output("object_x", "m", per="scan", merge="first", long_name="horizontal axis of the object"),
        Output("object_y", "m", per="scan", merge="first", long_name="vertical axis of the object"),
        Output("probe", "sqrt(counts)", per="scan", merge="first", long_name="probe modes, strongest first"),
        Output("error", "", per="scan", merge="first", long_name="misfit of amplitudes² / measured counts, per iteration"),
        Output("pixel_size", "m", per="scan", merge="first", long_name="object pixel (vertical, horizontal)"),
        Output("position_x_used", "m", long_name="horizontal position as it was measured"),
        Output("position_y_used", "m", long_name="vertical position as it was measured"),
        Output("position_x_refined", "m", long_name="horizontal position after refinement"),
        Output("position_y_refined", "m", long_name="vertical position after refinement"),
        *_quality(),
    )
    if not settings.frc:
        return whole
    return (
        *whole,
        Output("frc", "", per="scan", merge="first", long_name="Fourier ring correlation of two half scans"),
        Output("frc_half_bit", "", per="scan", merge="first", long_name="half-bit curve"),
        Output("frc_frequency", "1/m", per="scan", merge="first", long_name="spatial frequency of each ring"),
        Output("resolution", "m", per="scan", merge="first", long_name="half period at the half-bit crossing"),
    )


def _quality() -> list[Output]:
    found = []
    for group, of in ((QUALITY, ""), (LIVE, " (while the scan was measured)")):
        said = {name: Output(f"{group}/{name}", "", "scan", "first", text + of, text=True) for name, text in SAID.items()}
        known = {name: Output(f"{group}/{name}", "", "scan", "first", text + of) for name, text in FIGURES.items()}
        found += [*said.values(), *known.values()]
    return found


def takes(settings: PtychographySettings) -> dict[str, str]:
    """Return the unit of positions that come from a pipeline."""
    return {} if settings.positions == "file" else dict.fromkeys(settings.positions, settings.positions_unit)


MODALITY = Modality(
    name="ptychography",
    settings=PtychographySettings,
    outputs=outputs,
    takes=takes,
    kernel="cluster_side.modalities.ptychography.kernel:load",
    context=True,
    follows=True,
    whole_scan=True,
    packages=("numpy", "scipy", "pyFFTW", "mpi4py", "cupy-cuda12x"),
)
