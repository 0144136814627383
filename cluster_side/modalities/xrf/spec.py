"""XRF, light half: which detector elements, and how they are fitted.

The model of the fit is the user's own PyMca configuration (calibration "cfg"), unchanged.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, NonNegativeInt, model_validator

from cluster_side.modalities.base import Modality, Output, SettingsModel


class XrfSettings(SettingsModel):
    """How spectra are fitted."""

    engine: Literal["pymca"] = "pymca"
    """"pymca": PyMca's own fast linear fit."""
    detectors: Literal["all"] | Annotated[list[NonNegativeInt], Field(min_length=1)] = "all"
    """Detector elements to sum, counted from 0; leave dead ones out."""
    dead_time: bool = True
    """Correct each detector element for its dead time before they are summed."""
    weight: Literal[0, 1] = 0
    """0: all channels count alike; 1: weights from the sum of the spectra of one task (so the task size matters)."""
    refit: bool = True
    """Fit again without the elements whose area came out negative."""
    normalise_to: str | None = None
    """The beam monitor, as "pipeline/dataset" of the pipeline's inputs; areas are multiplied by normalise_reference / monitor."""
    normalise_reference: FiniteFloat | None = Field(default=None, gt=0)
    """The monitor value to which areas are scaled."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.normalise_to is None) != (self.normalise_reference is None):
            raise ValueError("normalise_to and normalise_reference go together; give both or neither")
        if self.detectors != "all" and len(set(self.detectors)) < len(self.detectors):
            raise ValueError("detectors names an element twice; it would be counted twice")
        return self


def outputs(settings: XrfSettings) -> tuple[Output, ...]:
    """Return areas and their uncertainty per line group, and the spectra of the scan."""
    scaled = f", scaled to {settings.normalise_to} = {settings.normalise_reference}" if settings.normalise_to else ""
    return (
        Output("area/*", "counts", long_name=f"fitted area of a line group{scaled}"),
        Output("sigma/*", "counts", long_name=f"standard uncertainty of the area{scaled}"),
        Output("total_counts", "counts", long_name="counts of the whole spectrum"),
        Output("spectrum/sum", "counts", per="scan", merge="sum", long_name="sum of all spectra"),
        Output("spectrum/max", "counts", per="scan", merge="max", long_name="largest value of each channel"),
        Output("energy", "keV", per="scan", merge="first", long_name="photon energy of each channel"),
    )


MODALITY = Modality(
    name="xrf",
    settings=XrfSettings,
    outputs=outputs,
    kernel="cluster_side.modalities.xrf.kernel:load",
    needs=("cfg",),
    packages=("numpy", "PyMca5", "fisx"),
    judge="cluster_side.modalities.xrf.pymca_file:judge",
)
