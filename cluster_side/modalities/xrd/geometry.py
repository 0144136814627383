"""A poni file, read and judged before any frame is integrated.

Orientation is explicit: where pixel 0 lies is either in the file (poni 2.1) or in the settings; a file of version 1 or 2
alone does not say it, and the wrong guess gives a wrong pattern without any error.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from pyFAI.detectors import Detector, detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.io.ponifile import PoniFile

from beamtide.errors import BadInput
from cluster_side.modalities import images
from cluster_side.modalities.xrd.spec import XrdSettings

HC = 12.398419843320026
"""Planck's constant x speed of light in keV x angstrom (CODATA 2018)."""
LONGEST = 1e-8
"""Wavelengths in m above this are given in another unit."""


def required(calibration: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """Return the poni file of a calibration; BadInput if there is none."""
    if "poni" not in calibration:
        raise BadInput("calibration.poni is missing: name the geometry file (.poni) that pyFAI made")
    return calibration["poni"]


def poni(path: pathlib.Path) -> PoniFile:
    """Return a geometry; BadInput says what is wrong with the file."""
    try:
        content = path.read_text(encoding="utf-8")
        found = PoniFile(str(path))
    except Exception as error:  # pyFAI raises what its parsers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path} is not a readable poni file ({reason}); save it again from pyFAI-calib2") from error
    for key in ("Distance", "Poni1", "Poni2", "Wavelength"):
        if not any(line.split(":")[0].strip() == key for line in content.splitlines() if not line.startswith("#")):
            raise BadInput(f"{path}: there is no {key}; save it again from pyFAI-calib2")
    if not found.dist or found.dist <= 0:
        raise BadInput(f"{path}: Distance is {found.dist}; it must be a positive number in m")
    if not found.wavelength or not 0 < found.wavelength < LONGEST:
        raise BadInput(f"{path}: Wavelength is {found.wavelength}; it must be in m, such as 4.066e-11")
    if not found.detector or not found.detector.pixel1 or not found.detector.pixel2:
        raise BadInput(f"{path}: there is no detector with a pixel size; choose the detector in pyFAI-calib2 and save it again")
    return found


def states_orientation(path: pathlib.Path) -> bool:
    """Whether a poni file says where pixel 0 lies."""
    return '"orientation"' in path.read_text(encoding="utf-8")


def integrator(settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> AzimuthalIntegrator:
    """Return pyFAI's integrator for frames of a known shape and orientation; BadInput if either is not known."""
    path = required(calibration)
    found = poni(path)
    detector = _detector(found.detector, settings, path)
    if detector.shape is None and "mask" in calibration:
        rows, columns = images.read(calibration["mask"], "mask").shape
        detector.max_shape = detector.shape = (rows, columns)
    if detector.shape is None:
        raise BadInput(f"{path}: the detector has no shape; set settings.shape to [rows, columns] of an image, or add a mask")
    values = found.dist, found.poni1, found.poni2, found.rot1, found.rot2, found.rot3
    return AzimuthalIntegrator(*values, detector=detector, wavelength=found.wavelength)


def _detector(found: Detector, settings: XrdSettings, path: pathlib.Path) -> Detector:
    if settings.orientation is None and not states_orientation(path):
        raise BadInput(
            f"{path} does not say where pixel 0 lies: set settings.orientation to 3 (pyFAI's default), "
            "or to 2 for a file of Fit2D or Dioptas"
        )
    config: dict[str, Any] = dict(found.get_config() or {})
    config["orientation"] = settings.orientation or found.orientation
    if settings.shape and type(found) is Detector:
        config["max_shape"] = settings.shape
    detector = detector_factory(found.name if type(found) is not Detector else "Detector", config=config)
    if settings.shape and tuple(detector.shape) != settings.shape:
        raise BadInput(
            f"{path}: its detector {found.name} has {tuple(detector.shape)} pixels, but settings.shape is {settings.shape}"
        )
    return detector
