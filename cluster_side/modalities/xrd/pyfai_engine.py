"""pyFAI itself, frame by frame: the reference, and with `opencl` the way to a GPU."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.method_registry import IntegrationMethod

from beamtide.errors import BadInput
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.xrd import frames, geometry, model
from cluster_side.modalities.xrd.spec import XrdSettings

Array = NDArray[Any]
NOT_MEASURED = np.float32(-1e9)
"""Value of pixels in an image that are not valid."""


def load(settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function; its outputs are those of the fast engine but for what merges over the scan."""
    if settings.rois or settings.peaks or settings.background_scale != 1 or "background" in calibration:
        raise BadInput("engine: pyfai is the reference for patterns; rois, peaks and background need engine: fast")
    ai = geometry.integrator(settings, calibration)
    shape = tuple(ai.detector.shape)
    field, marks = model.known_field(ai, calibration), model.marks_of(ai)
    options: dict[str, Any] = {"dark": field.dark, "flat": field.flat}
    sector = geometry.sector(settings.azimuth_range)
    if settings.polarization is not None:  # the beam's axis does not turn with the sector
        options["polarization_factor"] = [settings.polarization, float(np.deg2rad(sector.turn))]
    ai, options["correctSolidAngle"] = sector.turned(ai), settings.solid_angle
    options |= {"mask": model.mask_of(ai, calibration), "dummy": NOT_MEASURED, "delta_dummy": 1.0}
    wavelength = 1e10 * ai.wavelength
    here = functools.cache(lambda: options | {"method": _method(settings)})  # who computes has the GPU, not who checks

    def compute(arrays: Mapping[str, Array]) -> dict[str, Array]:
        factor = frames.scaling(arrays, settings)
        found, cakes = list[Any](), list[Any]()
        for image in frames.images(arrays, settings, shape, marks):
            good = frames.valid(image.dtype, settings, marks).of(image) & field.known
            image = np.where(good, image, NOT_MEASURED)  # a mask that differs would move the bins
            found.append(_one(ai, image, settings, here()))
            if settings.cake:
                cakes.append(_cake(ai, image, settings, here()))
        datasets = _datasets("azint1d", found, factor) | {"azint1d/radial_axis": np.asarray(found[0].radial)}
        if cakes:
            axes = {"azint2d/radial_axis": cakes[0].radial, "azint2d/azimuthal_axis": cakes[0].azimuthal + sector.offset}
            datasets |= _datasets("azint2d", cakes, factor) | {name: np.asarray(axis) for name, axis in axes.items()}
        return datasets | frames.beam(wavelength)

    return compute


def _method(settings: XrdSettings) -> tuple[str, str, str]:
    method = (settings.split, "csr", "opencl" if settings.opencl else "cython")
    found = IntegrationMethod.select_method(1, *method)
    if not found:
        raise BadInput("opencl: pyFAI finds no OpenCL device here; install pyopencl and a driver, or leave opencl out")
    if settings.opencl:
        _build_something(*found[0].target)
    return method


def _build_something(platform: int, device: int) -> None:
    """BadInput if a device is there and its driver cannot compile for it, as with a driver that is older than the processor."""
    import pyopencl
    from silx.opencl.common import ocl

    context = ocl.create_context(platformid=platform, deviceid=device)
    try:
        pyopencl.Program(context, "__kernel void nothing(__global int *x) { x[0] = 0; }").build()
    except pyopencl.Error as error:
        said = next((line for line in str(error).splitlines() if line.startswith("error:")), "it does not say why")
        name = context.devices[0].name
        raise BadInput(
            f"opencl: the driver of {name} cannot compile for it ({said}); install a newer one, or leave opencl out"
        ) from error


def _one(ai: AzimuthalIntegrator, image: Array, settings: XrdSettings, options: Mapping[str, Any]) -> Any:
    limits = {"radial_range": settings.radial_range, "azimuth_range": geometry.sector(settings.azimuth_range).limits}
    if settings.sigma_clip:
        clip = {"thres": settings.sigma_clip.threshold, "max_iter": settings.sigma_clip.cycles, "error_model": "azimuthal"}
        return ai.sigma_clip_ng(image, settings.points, unit=settings.unit, **limits, **clip, **options)
    return ai.integrate1d_ng(image, settings.points, unit=settings.unit, error_model="poisson", **limits, **options)


def _cake(ai: AzimuthalIntegrator, image: Array, settings: XrdSettings, options: Mapping[str, Any]) -> Any:
    sector = geometry.sector(settings.azimuth_range)
    limits = {"radial_range": settings.radial_range, "azimuth_range": sector.limits, "error_model": "poisson"}
    return ai.integrate2d_ng(image, settings.points, settings.cake, unit=settings.unit, **limits, **options)


def _datasets(name: str, found: list[Any], factor: NDArray[np.float64]) -> dict[str, Array]:
    scale = factor.reshape(-1, *(1,) * found[0].intensity.ndim)
    sums = np.stack([np.asarray(one.sum_normalization, float) for one in found])
    intensity, sigma = (
        np.where(sums > 0, np.stack([np.asarray(getattr(one, key), float) for one in found]), np.nan)
        for key in ("intensity", "sem")
    )
    return {f"{name}/I": (intensity * scale).astype(np.float32), f"{name}/I_errors": (sigma * scale).astype(np.float32)}
