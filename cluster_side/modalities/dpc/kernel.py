"""DPC, heavy half: frames, or the readings of a segmented detector, become sums and deflections, exposure by exposure."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import images, pixels
from cluster_side.modalities.base import Kernel
from cluster_side.modalities.dpc import moments
from cluster_side.modalities.dpc.shift import shifts
from cluster_side.modalities.dpc.spec import DpcSettings, GeometrySettings, SegmentSettings
from cluster_side.modalities.points import columns
from cluster_side.modalities.points.columns import Column, Frames

Datasets = dict[str, NDArray[Any]]


def load(settings: DpcSettings, calibration: Mapping[str, pathlib.Path]) -> Kernel:
    """Return the array function of these settings; BadInput for calibration files that are no frames."""
    correction = _correction(calibration)
    empty = None
    if settings.method == "fourier_shift":
        if "reference" not in calibration:
            raise BadInput("calibration.reference is missing: fourier_shift needs an image of the empty beam")
        reference = images.read(calibration["reference"], "reference")
        _check_sizes(correction, reference, "calibration.reference has")
        empty = moments.profiles(reference[None], correction)

    def kernel(frames: Frames) -> Datasets:
        if settings.segments is not None:
            return from_segments(frames, settings.segments)
        return from_frames(frames, settings, correction, empty)

    return kernel


def from_frames(
    frames: Frames, settings: DpcSettings, correction: moments.FrameCorrection, empty: moments.Profiles | None
) -> Datasets:
    """Return sum, position, width, dark field and angle of each frame; `empty` holds the profiles of the empty beam."""
    if (bad := pixels.bad_of_files(frames)) is not None:
        if correction.masked is not None:
            images.check_shape(correction.masked, "mask", (bad.shape[0], bad.shape[1]))
        correction = moments.FrameCorrection(bad if correction.masked is None else correction.masked | bad, correction.dark)
    raw = _images(frames, settings.frames or "", correction)
    shape = (raw.shape[1], raw.shape[2])
    if settings.disc is not None:
        disc = moments.beyond(shape, settings.disc.x, settings.disc.y, settings.disc.radius)
        correction = moments.FrameCorrection(correction.masked, correction.dark, disc)
    found = moments.profiles(raw, correction)
    counted = moments.total(found)
    datasets: Datasets = {"sum": counted}
    (x, datasets["width_x"]), (y, datasets["width_y"]) = moments.middle(found.columns), moments.middle(found.rows)
    if empty is not None:
        (x, along_x), (y, along_y) = shifts(found.columns, empty.columns[0]), shifts(found.rows, empty.rows[0])
        datasets["amplitude"] = 0.5 * (along_x + along_y)
    datasets |= {"com_x": x, "com_y": y}
    if settings.disc is not None:
        datasets["dark_field"] = np.where(counted > 0, found.outside, np.nan) / np.where(counted > 0, counted, np.nan)
    if settings.geometry is not None:
        rest = settings.reference or _undeflected(shape, empty)
        datasets |= {"angle_x": angle(x, rest[0], settings.geometry), "angle_y": angle(y, rest[1], settings.geometry)}
    datasets["flags/frame"] = columns.flagged(len(raw), {0: ~np.isfinite(x * y), 1: found.lost})
    return datasets


def _undeflected(shape: tuple[int, int], empty: moments.Profiles | None) -> tuple[float, float]:
    """Return (x, y) that angles count from: no shift against the empty beam, or the middle of the frame."""
    return (0.0, 0.0) if empty is not None else ((shape[1] - 1) / 2, (shape[0] - 1) / 2)


def angle(position: Column, reference: float, geometry: GeometrySettings) -> Column:
    """Return (position - reference) x pixel size / distance: the deflection in radians, for small angles."""
    return (position - reference) * (geometry.pixel_size / geometry.distance)


def from_segments(frames: Frames, settings: SegmentSettings) -> Datasets:
    """Return sum, contrasts and angles of a segmented detector."""
    readings = {name: _segment(frames, name, settings) for name in dict.fromkeys(_names(settings))}

    def together(names: tuple[str, ...]) -> Column:
        return np.asarray(np.sum([readings[name] for name in names], axis=0))

    x, y = (
        columns.contrast(together(plus), together(minus))
        for plus, minus in ((settings.right, settings.left), (settings.top, settings.bottom))
    )
    return {
        "sum": together(tuple(readings)),
        "contrast_x": x,
        "contrast_y": y,
        "angle_x": settings.scale_x * x,
        "angle_y": settings.scale_y * y,
        "flags/frame": columns.flagged(len(x), {0: ~np.isfinite(x * y), 2: settings.dark is None}),
    }


def _correction(calibration: Mapping[str, pathlib.Path]) -> moments.FrameCorrection:
    """Return what every frame is corrected with; pixels without a dark level are left out like masked ones."""
    masked = images.mask(calibration)
    dark = images.measured(calibration, "dark", None if masked is None else (masked.shape[0], masked.shape[1]))
    if dark is None:
        return moments.FrameCorrection(masked)
    unknown = ~dark.known
    return moments.FrameCorrection(unknown if masked is None else masked | unknown, dark.values)


def _check_sizes(correction: moments.FrameCorrection, image: NDArray[Any], what: str) -> None:
    for role, frame in (("mask", correction.masked), ("dark", correction.dark)):
        if frame is not None and frame.shape != image.shape:
            raise BadInput(f"calibration.{role} has shape {frame.shape}, {what} {image.shape}; they must fit")


def _names(settings: SegmentSettings) -> tuple[str, ...]:
    return (*settings.left, *settings.right, *settings.bottom, *settings.top)


def _segment(frames: Frames, name: str, settings: SegmentSettings) -> Column:
    """Return (reading - dark) x gain of one segment."""
    dark = settings.dark[name] if isinstance(settings.dark, dict) else settings.dark or 0.0
    return (columns.single(frames, name) - dark) * settings.gain.get(name, 1.0)


def _images(frames: Frames, name: str, correction: moments.FrameCorrection) -> NDArray[Any]:
    if name not in frames:
        raise BadInput(f"the frames have no array {name!r}, only {', '.join(sorted(frames))}; correct source.options or `frames`")
    found = frames[name]
    if found.ndim != 3 or found.dtype.kind not in "biuf" or not found.size:
        raise BadInput(f"{name!r} holds {found.dtype} of shape {found.shape}; expected frames (exposure, y, x)")
    pixels.refuse_subtracted(found[0], pixels.ANY, name)
    _check_sizes(correction, found[0], "the frames have")
    return found
