"""XRF, light half: which detector elements, and how they are fitted.

The model of the fit is the user's own PyMca configuration (calibration "cfg"), unchanged.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, NonNegativeInt, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel
from cluster_side.modalities.points.settings import flag_output, together


class ElementEnergy(SettingsModel):
    """The energy axis of one detector element: energy of channel c = zero + gain x c."""

    zero: FiniteFloat = 0.0
    """Energy of channel 0 in keV."""
    gain: FiniteFloat = Field(gt=0)
    """keV per channel."""


class XrfSettings(SettingsModel):
    """How spectra are fitted."""

    engine: Literal["fast", "pymca"] = "fast"
    """"fast": PyMca's model, prepared once, and a non-negative fit that does not depend on the task size; "pymca": PyMca's own
    fast linear fit, the reference."""
    spectra: Annotated[tuple[str, ...], Field(min_length=1)] = ("spectra",)
    """The arrays of the frames that hold counts. Several: detectors that are stored apart, their elements counted on from one to
    the next. Dead-time factors of "spectra" are the array "dead_time_factor", those of another one NAME_dead_time_factor."""
    detectors: Literal["all"] | Annotated[list[NonNegativeInt], Field(min_length=1)] = "all"
    """Detector elements to sum, counted from 0; leave dead ones out."""
    dead_time: bool = True
    """Correct each detector element for its dead time before they are summed."""
    element_energy: dict[NonNegativeInt, ElementEnergy] = {}
    """Detector elements whose energy axis is not that of the configuration; their counts are moved to its channels."""
    weight: Literal[0, 1] = 0
    """0: all channels count alike; 1: weights from calibration.spectrum ("pymca": from the spectra of one task)."""
    refit: bool = True
    """"pymca" only: fit again without the elements whose area came out negative; "fast" always gives the best areas >= 0."""
    calibrate: bool = False
    """Take the energy axis and the resolution from one non-linear fit of calibration.spectrum."""
    mass_fractions: bool = False
    """Compute mass fractions as [concentrations] of the configuration says."""
    normalise_to: str | None = None
    """The beam monitor, as "pipeline/dataset" of the pipeline's inputs; areas are multiplied by normalise_reference / monitor."""
    normalise_reference: FiniteFloat | None = Field(default=None, gt=0)
    """The monitor value to which areas are scaled."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        together(self, "normalise_to", "normalise_reference")
        if len(set(self.spectra)) < len(self.spectra):
            raise ValueError("spectra names an array twice; it would be counted twice")
        if self.detectors != "all" and len(set(self.detectors)) < len(self.detectors):
            raise ValueError("detectors names an element twice; it would be counted twice")
        if self.engine == "pymca" and (self.calibrate or self.mass_fractions):
            raise ValueError("calibrate and mass_fractions need engine: fast")
        return self


FLAGS = {
    0: "no value: an element has counts, and no positive dead-time factor",
    1: "no value: a channel is no count (NaN, negative, or all bits set)",
    2: "no areas: the beam monitor is not a positive number",
}
"""Bit of flags/spectrum -> what it says."""
AXIS, FIT_AXIS = {"axis": "energy"}, {"axis": "fit/energy"}
FIRST = {"show": "first"}


def outputs(settings: XrfSettings) -> tuple[Output, ...]:
    """Return areas and their uncertainty per line group, and the spectra of the scan."""
    scaled = f", scaled to {settings.normalise_to} = {settings.normalise_reference}" if settings.normalise_to else ""
    area = f"fitted area of a line group{scaled}"
    return (
        Output("area/Scatter*", "counts", long_name=area),  # strong everywhere, and no element of the sample
        Output("area/*", "counts", long_name=area, attributes=FIRST),
        Output("sigma/*", "counts", long_name=f"standard uncertainty of the area{scaled}"),
        Output("mass_fraction/*", "1", long_name="mass fraction"),
        Output("chi2", "1", long_name="squared residuals in units of their variance, per degree of freedom"),
        flag_output("spectrum", FLAGS),
        Output("live_elements", "1", long_name="detector elements with counts"),
        Output("total_counts", "counts", long_name="counts of the whole spectrum"),
        Output("spectrum/sum", "counts", per="scan", merge="sum", long_name="sum of all spectra", attributes=AXIS),
        Output("spectrum/max", "counts", per="scan", merge="max", long_name="largest value of each channel", attributes=AXIS),
        Output("energy", "keV", per="scan", merge="first", long_name="photon energy of each channel"),
        Output("fit/energy", "keV", per="scan", merge="first", long_name="photon energy of each fitted channel"),
        Output("fit/residual", "counts", per="scan", merge="sum", long_name="sum spectrum less its fit", attributes=FIT_AXIS),
        Output("fit/*", "counts", per="scan", merge="sum", long_name="in the fit of the sum spectrum", attributes=FIT_AXIS),
    )


MODALITY = Modality(
    name="xrf",
    settings=XrfSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.xrf.kernel:load",
    needs=("cfg",),
    packages=("numpy", "PyMca5", "fisx"),
    prepare="cluster_side.modalities.xrf.model:prepare",
    explain="cluster_side.modalities.xrf.explain:explain",
    explains="cfg",
)
