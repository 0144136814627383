"""Reads and checks a poni file before any frame is integrated.

The orientation is explicit: where pixel 0 lies is either in the file (poni 2.1) or in the settings; a file of version 1 or 2 does
not contain it, and a wrong guess gives a wrong pattern without any error.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from pyFAI.detectors import Detector, detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.io.ponifile import PoniFile

from beamtide.config.calibration import key_of
from beamtide.errors import BadInput
from beamtide.formats import confinement
from cluster_side.modalities import images
from cluster_side.modalities.xrd import poni_text
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


def poni(path: pathlib.Path, calibration: Mapping[str, pathlib.Path]) -> PoniFile:
    """Return the geometry of the last block of a file; BadInput says what is wrong with it. Only what came with it is opened."""
    block = poni_text.last_block(path)
    files = {name: calibration[key] for name in poni_text.files("poni", path) if (key := key_of("poni", name)) in calibration}
    for name, file in files.items():
        _self_contained(file, f"{path}: {name}")
    block = poni_text.with_files(block, path, files)
    try:
        found = PoniFile(block)
    except Exception as error:  # pyFAI raises what its parsers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{path} is not a readable poni file ({reason}); save it again from pyFAI-calib2") from error
    if not found.dist or found.dist <= 0:
        raise BadInput(f"{path}: Distance is {found.dist}; it must be a positive number in m")
    if not found.wavelength or not 0 < found.wavelength < LONGEST:
        raise BadInput(f"{path}: Wavelength is {found.wavelength}; it must be in m, such as 4.066e-11")
    if not found.detector or not found.detector.pixel1 or not found.detector.pixel2:
        raise BadInput(f"{path}: there is no detector with a pixel size; choose the detector in pyFAI-calib2 and save it again")
    return found


def _self_contained(file: pathlib.Path, where: str) -> None:
    """Raise BadInput for HDF5 that leads to other files, or is none that can be read."""
    if not h5py.is_hdf5(file):
        return
    with h5py.File(file, "r") as opened:
        if targets := confinement.leads(opened, confinement.MAX_OBJECTS)[0]:
            raise BadInput(f"{where}: {targets[0][0]} leads to {targets[0][1]}, and only the file itself travels; copy it inside")


def states_orientation(path: pathlib.Path) -> bool:
    """Whether a poni file says where pixel 0 lies, in the block that counts."""
    return poni_text.states_orientation(poni_text.last_block(path), path)


def integrator(settings: XrdSettings, calibration: Mapping[str, pathlib.Path]) -> AzimuthalIntegrator:
    """Return pyFAI's integrator for frames of a known shape and orientation; BadInput if either is not known."""
    path = required(calibration)
    found = poni(path, calibration)
    detector = _detector(found.detector, settings, path)
    if detector.shape is None and "mask" in calibration:
        rows, columns = images.read(calibration["mask"], "mask").shape
        detector.max_shape = detector.shape = (rows, columns)
    if detector.shape is None:
        raise BadInput(f"{path}: the detector has no shape; set settings.shape to [rows, columns] of an image, or add a mask")
    values = found.dist, found.poni1, found.poni2, found.rot1, found.rot2, found.rot3
    made = AzimuthalIntegrator(*values, detector=detector, wavelength=found.wavelength)
    if found.parallax:
        made.enable_parallax()
    return made


@dataclass(frozen=True, slots=True)
class Sector:
    """A sector of azimuth for pyFAI, whose angles end at +-180 degree."""

    limits: tuple[float, float] | None
    """In degree, within +-180; None: the full circle."""
    turn: float = 0.0
    """By how many degrees the angles of pixels are turned back, so that the sector does not lie across the end."""
    offset: float = 0.0
    """What is added to pyFAI's angles to have those of the settings again."""

    def turned(self, ai: AzimuthalIntegrator) -> AzimuthalIntegrator:
        """Return an integrator in whose angles the sector is one piece. Its bins are right; polarization is that of `ai`."""
        if not self.turn:
            return ai
        values = ai.dist, ai.poni1, ai.poni2, ai.rot1, ai.rot2, ai.rot3 + np.deg2rad(self.turn)
        made = AzimuthalIntegrator(*values, detector=ai.detector, wavelength=ai.wavelength)
        if ai.parallax is not None:
            made.enable_parallax()
        return made


def sector(wanted: tuple[float, float] | None) -> Sector:
    """Return a range of azimuth (degree) as pyFAI takes it whole; one of 360 degree or more is the full circle."""
    if wanted is None or wanted[1] - wanted[0] >= 360.0:
        return Sector(None)
    middle, half = (wanted[0] + wanted[1]) / 2, (wanted[1] - wanted[0]) / 2
    near = (middle + 180.0) % 360.0 - 180.0
    if near - half >= -180.0 and near + half <= 180.0:
        offset = middle - near
        return Sector((wanted[0] - offset, wanted[1] - offset), offset=offset)
    return Sector((-half, half), turn=near, offset=middle)


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
    detector = detector_factory(type(found).__name__, config=config)
    if settings.shape and tuple(detector.shape) != settings.shape:
        raise BadInput(
            f"{path}: its detector {found.name} has {tuple(detector.shape)} pixels, but settings.shape is {settings.shape}"
        )
    return detector
