"""One scan for the engines: its geometry, its frames, and its positions in pixels of the object.

Everything that can be found wrong before the first iteration is reported here, in one sentence.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from cluster_side.modalities import images, pixels
from cluster_side.modalities.context import Team
from cluster_side.modalities.ptychography import geometry as geo
from cluster_side.modalities.ptychography.engines.state import members
from cluster_side.modalities.ptychography.frames import Cut, PreparedFrames, Share, prepare
from cluster_side.modalities.ptychography.spec import PtychographySettings

Arrays = Mapping[str, NDArray[Any]]
METRES = {"nm": 1e-9, "um": 1e-6, "mm": 1e-3, "m": 1.0}
MARGIN = 2
LARGEST_OBJECT = 32_768


@dataclass(frozen=True, slots=True)
class PtychographyScan:
    """A scan, ready to be reconstructed. Positions (n, 2) are (vertical, horizontal)."""

    geometry: geo.Geometry
    pixel: float
    """Of the object, in metres."""
    prepared: PreparedFrames
    measured: NDArray[np.float64]
    """Positions of all indexes in metres; NaN where unknown."""
    known: NDArray[np.int64]
    """Indexes whose position is known: the others are left out."""
    pixels: NDArray[np.float64]
    """Of the known ones: the object pixel under the probe's pixel (0, 0)."""
    shape: tuple[int, int]
    """Of the object."""
    probe_shape: tuple[int, int]
    flip: tuple[int, int] = (1, 1)
    origin: tuple[int, int] = (0, 0)
    """The object's pixel (0, 0), in pixels from the zero of the positions."""

    def near(self, radius: float) -> NDArray[np.float32]:
        """Return 1 where the object lies within `radius` pixels of the probe's middle at some position, 0 elsewhere."""
        from scipy.ndimage import distance_transform_edt

        nowhere = np.ones(self.shape, bool)
        at = np.rint(self.pixels + np.asarray(self.probe_shape) / 2).astype(int)
        rows, columns = at[((at >= 0) & (at < self.shape)).all(axis=1)].T  # `moved` leaves out what is far away
        nowhere[rows, columns] = False
        return np.asarray(distance_transform_edt(nowhere) <= radius, np.float32)

    def middle(self, most: int) -> NDArray[np.int64]:
        """Return which known positions (their numbers, rising) lie next to the middle of the scan, so many at most."""
        away = np.hypot(*(self.pixels - np.median(self.pixels, axis=0)).T)
        return np.sort(np.argsort(away, kind="stable")[:most])

    def moved(self, pixels: NDArray[np.float64], which: NDArray[np.int64]) -> "PtychographyScan":
        """Return the scan with its positions elsewhere (known, 2), and an object that is as large as some of them need."""
        low, high = pixels[which].min(axis=0), pixels[which].max(axis=0)
        origin = np.floor(low) - MARGIN
        rows, columns = (np.ceil(high - origin).astype(int) + np.asarray(self.probe_shape) + MARGIN).tolist()
        return replace(self, pixels=pixels - origin, shape=(rows, columns))


def scan_of(
    arrays: Arrays, settings: PtychographySettings, mask: pathlib.Path | None, team: Team | None = None
) -> PtychographyScan:
    """Return the scan, with a rank's share of its frames; BadInput says what is wrong with it."""
    frames, share = frames_of(arrays), None
    if team is not None:
        every = np.arange(len(frames))
        share = Share(np.sort(members(every, len(every), team.rank, team.size).own), team)
    return scan_with(arrays, settings, prepare(frames, cut_of(settings), mask_of(arrays, mask), share))


def cut_of(settings: PtychographySettings) -> Cut:
    """Return which part of the detector these settings use."""
    return Cut(settings.centre, settings.crop, settings.rebin, settings.saturation, near=settings.source is not None)


def mask_of(arrays: Arrays, path: pathlib.Path | None) -> NDArray[np.bool_] | None:
    """Return which pixels a calibration file, or the file of the frames itself, says to be bad; None if neither does."""
    own, given = pixels.bad_of_files(arrays), None if path is None else images.mask({"mask": path})
    if own is None or given is None:
        return given if own is None else own
    images.check_shape(given, "mask", (own.shape[0], own.shape[1]))
    return own | given


def scan_with(arrays: Arrays, settings: PtychographySettings, prepared: PreparedFrames) -> PtychographyScan:
    """Return the scan of frames that are cut already; BadInput says what is wrong with it."""
    geometry, measured = _geometry(arrays, settings), _positions(arrays, settings)
    if prepared.total != len(measured):
        raise BadInput(f"there are {prepared.total} frames and {len(measured)} positions; they must belong to the same exposures")
    height, width = prepared.counts.shape[1:]
    pixel = geometry.pixel(height * settings.rebin)
    known = np.flatnonzero(np.isfinite(measured).all(axis=1))
    if len(known) < 2:
        raise BadInput(f"positions: {len(known)} of {len(measured)} are numbers; ptychography needs at least two")
    margin = MARGIN + (int(np.ceil(settings.refine.positions_bound)) if settings.refine.positions_after is not None else 0)
    pixels = measured[known] * np.asarray(settings.flip) / pixel
    origin = np.floor(pixels.min(axis=0)) - margin
    pixels = pixels - origin
    probe_shape = (height * settings.upsample, width * settings.upsample)
    _check_steps(pixels, pixel, probe_shape)
    rows, columns = (int(np.ceil(pixels[:, axis].max())) + probe_shape[axis] + margin for axis in (0, 1))
    begin = (int(origin[0]), int(origin[1]))
    return PtychographyScan(
        geometry, pixel, prepared, measured, known, pixels, (rows, columns), probe_shape, settings.flip, begin
    )


def frames_of(arrays: Arrays) -> Any:
    """Return the frames of a task; BadInput if it has none."""
    if "frames" not in arrays:
        raise BadInput(
            f"frames: the task has no array of that name, only {', '.join(sorted(arrays)) or 'none'}; name it in options"
        )
    return arrays["frames"]


def _geometry(arrays: Arrays, settings: PtychographySettings) -> geo.Geometry:
    from_file = arrays.get("geometry")
    energy, distance, pixel = (float("nan"),) * 3 if from_file is None else (float(value) for value in from_file[0])
    energy = settings.energy if settings.energy is not None else energy
    distance = settings.distance if settings.distance is not None else distance
    pixel = settings.detector_pixel * 1e-6 if settings.detector_pixel is not None else pixel
    for name, value, unit in (("energy", energy, "keV"), ("distance", distance, "m"), ("detector_pixel", pixel, "um")):
        if not np.isfinite(value):
            raise BadInput(f"settings.{name} is required ({unit}): the file of the frames does not say it")
    return geo.checked(energy, distance, pixel, settings.source)


def _positions(arrays: Arrays, settings: PtychographySettings) -> NDArray[np.float64]:
    if settings.positions == "file":
        if "positions" not in arrays:
            raise BadInput(
                "positions: the frames' file has none; set positions to two datasets, such as [encoders/y, encoders/x]"
            )
        return np.asarray(arrays["positions"], np.float64)[:, :2]
    missing = [name for name in settings.positions if name not in arrays]
    if missing:
        raise BadInput(f"positions: the task has no {missing[0]!r}; name it in the pipeline's inputs")
    columns = [np.asarray(arrays[name], np.float64) for name in settings.positions]
    return np.stack(columns, axis=1) * METRES[settings.positions_unit]


def _check_steps(pixels: NDArray[np.float64], pixel: float, probe_shape: tuple[int, int]) -> None:
    span, size = np.ptp(pixels, axis=0), min(probe_shape)
    if span.max() < 1:
        raise BadInput(f"positions: all {len(pixels)} lie within one object pixel ({pixel:.3g} m); is their unit right?")
    step = _typical_step(pixels)
    if step > size:
        raise BadInput(
            f"positions: neighbours are {step:.0f} object pixels ({step * pixel:.3g} m) apart, further than the {size} pixels "
            "of the probe's array, so nothing overlaps; check the unit of the positions, energy and distance"
        )
    if span.max() > LARGEST_OBJECT:
        raise BadInput(f"positions: the object would be {span.max():.0f} pixels wide, at most {LARGEST_OBJECT}; check the units")


def _typical_step(pixels: NDArray[np.float64]) -> float:
    """Return the median distance to the nearest other position (of a thousand at most)."""
    some = pixels[:: max(1, len(pixels) // 1000)]
    nearest = []
    for one in some:
        distances = np.hypot(*(pixels - one).T)
        away = distances[distances > 1e-9]
        nearest.append(float(away.min()) if away.size else 0.0)
    return float(np.median(nearest))
