"""The frames of a task as images of the whole detector, and the factors that go with them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import pixels
from cluster_side.modalities.points.columns import monitor_factor
from cluster_side.modalities.xrd.integrate import check_shape
from cluster_side.modalities.xrd.spec import XrdSettings

Array = NDArray[Any]


Frames = Mapping[str, Array]


Values = NDArray[np.float64]


def images(frames: Frames, settings: XrdSettings, shape: tuple[int, int], marks: pixels.Marks) -> Iterator[Array]:
    """Yield each frame as one image of a detector with these marks; BadInput for frames in which they cannot be told."""
    bad = pixels.bad_of_files(frames)
    for number, image in enumerate(_whole(frames, settings, shape)):
        if not number:  # one for all: what was subtracted was so from each
            pixels.refuse_subtracted(image, marks, settings.frames)
            if bad is not None:
                check_shape(bad, shape, "mask")
        yield image if bad is None else np.where(bad, np.asarray(pixels.blank(image.dtype), image.dtype), image)


def _whole(frames: Frames, settings: XrdSettings, shape: tuple[int, int]) -> Iterator[Array]:
    """Yield each frame; panels are put in their place, and what no panel covers is not measured."""
    if not settings.panels:
        for frame in frames_of(frames, settings.frames):
            check_shape(frame, shape, settings.frames)
            yield frame
        return
    panels = [frames_of(frames, name) for name in settings.panels]
    for name, panel in zip(settings.panels, panels, strict=True):
        if panel.dtype != panels[0].dtype or panel.dtype.kind not in "iuf":
            raise BadInput(f"panels.{name} holds {panel.dtype}, the first {panels[0].dtype}; all must be one type of number")
    for exposure in zip(*panels, strict=True):  # each panel's file is opened once
        whole = np.full(shape, pixels.blank(panels[0].dtype), dtype=panels[0].dtype)
        for (name, (row, column)), panel in zip(settings.panels.items(), exposure, strict=True):
            height, width = panel.shape
            if row < 0 or column < 0 or row + height > shape[0] or column + width > shape[1]:
                raise BadInput(f"panels.{name}: {panel.shape} at row {row}, column {column} does not fit into {shape}")
            whole[row : row + height, column : column + width] = panel
        yield whole


def frames_of(frames: Frames, name: str) -> Array:
    """Return the images of a task; BadInput if they are not there."""
    if name not in frames:
        raise BadInput(
            f"the frames have no array {name!r}, only {', '.join(sorted(frames)) or 'nothing'}; correct source.options or frames"
        )
    found = frames[name]
    if found.ndim != 3:
        raise BadInput(f"{name!r} has shape {found.shape}; expected (exposure, row, column)")
    return found


def count_of(frames: Frames, settings: XrdSettings) -> int:
    """Return the number of exposures of a task."""
    return len(frames_of(frames, next(iter(settings.panels), settings.frames)))


def valid(dtype: np.dtype[Any], settings: XrdSettings, marks: pixels.Marks) -> pixels.Valid:
    """Return which values of a type are measurements, for a detector with these marks."""
    dummy = None
    if settings.dummy is not None:
        dummy = settings.dummy - settings.delta_dummy, settings.dummy + settings.delta_dummy
    return pixels.valid_values(dtype, marks, dummy, settings.overflow)


def scaling(frames: Frames, settings: XrdSettings) -> Values:
    """Return by what the intensities of each exposure are multiplied: reference / monitor."""
    return monitor_factor(frames, settings.normalise_to, settings.normalise_reference, count_of(frames, settings))


def beam(wavelength: float) -> dict[str, Array]:
    """Return wavelength (angstrom) and photon energy (keV) as datasets."""
    return {"beam/wavelength": np.array([wavelength]), "beam/energy": np.array([12.398419843320026 / wavelength])}
