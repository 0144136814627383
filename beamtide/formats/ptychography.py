"""Ptychography files of other programs: CXI (and NXcxi_ptycho, which is the same tree), and the `.ptyd` of ptypy.

Both hold frames, positions and geometry together, so a task needs nothing else. Arrays given: "frames" (frame, row, column),
"positions" (frame, 2: vertical, horizontal) in metres, and "geometry" (frame, 3), the same in each row: photon energy in keV,
distance in metres, detector pixel in metres; NaN for what a file does not say. Where the file brings a mask, "mask" (frame, row,
column) is True where a pixel is bad.

    CXI    entry_1/data_1/data · entry_1/…/translation (x, y, z) [m] · instrument_1/source_1/energy [J] · detector_1/distance,
           x_pixel_size, y_pixel_size [m] · detector_1/mask (0 = good)
    ptyd   chunks/N/data · chunks/N/positions (y, x) [m] · chunks/N/weights or meta/weight2d (0 = bad) · meta/energy [keV] ·
           meta/distance · meta/psize [m]

The unit in brackets is meant where a dataset has no attribute `units`; one that it has is obeyed, or refused if it is not known.
All chunks of a .ptyd are taken, in the order of their numbers. Detector pixels that are not square are refused.

Sources: F. R. N. C. Maia, Nature Methods 9 (2012) 854 and the CXI specification 1.6; ptypy 0.5, ptypy/core/data.py.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide import units
from beamtide.errors import BadInput
from beamtide.formats import rows as stored
from beamtide.formats import unwritten
from beamtide.formats.base import Extent, LostFrames, Unfinished, moved
from beamtide.formats.hdf5 import stated_unit
from beamtide.formats.lazy import RepeatedImage
from beamtide.formats.opening import opened
from beamtide.formats.recognise import hint_of

JOULE_PER_KEV = 1.602176634e-16
KEV_M = 1.23984198e-9
"""Wavelength in metres times energy in keV (CODATA 2018)."""
SIGNAL = 0x10000
"""Bit of a CXI mask that says nothing bad of a pixel: there is a signal above the background."""
SQUARE = 1e-6


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """Paths in a kind of file, and the unit that is meant; of several paths the first that exists counts."""

    frames: tuple[str, ...]
    positions: tuple[str, ...]
    columns: tuple[int, int]
    """Columns of the vertical and the horizontal position."""
    energy: tuple[str, ...]
    energy_unit: str
    distance: tuple[str, ...]
    pixel: tuple[tuple[str, ...], ...]
    """One dataset with both sizes of a pixel, or one for each of them; the first of these that is there counts."""
    masks: tuple[str, ...]
    zero_is_bad: bool
    """Whether 0 in a mask says bad (weights), or good."""
    wavelength: tuple[str, ...] = ()
    chunks: str = ""
    """The group whose groups 0, 1, 2 … hold the frames, one after the other; "": there is one set of frames."""


@dataclass(frozen=True, slots=True)
class _FrameSet:
    """Frames that lie together, with their positions and their mask, if there is one."""

    frames: h5py.Dataset
    positions: h5py.Dataset
    mask: h5py.Dataset | None


@dataclass(frozen=True, slots=True)
class PtychographyFile:
    """A format of frames, positions and geometry in one file."""

    places: DatasetPaths

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds; BadInput when it does not have as many positions."""
        with opened(path) as file:
            return Extent(sum(len(part.frames) for part in self._parts(path, file)))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the arrays of frames `first <= frame < last`."""
        with opened(path) as file:
            parts = self._parts(path, file)
            total = sum(len(part.frames) for part in parts)
            if not 0 <= first <= last <= total:
                raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {total}")
            frames, positions, bad, before = [], [], None, 0
            for part in parts:
                length = len(part.frames)
                rows = slice(min(length, max(0, first - before)), min(length, max(0, last - before)))
                frames.append(_frames(part.frames, rows, before))
                before += length
                columns = np.asarray(part.positions[rows], np.float64)[:, list(self.places.columns)]
                positions.append(columns * _factor(part.positions, "m", "m"))
                if part.mask is not None:
                    found = self._bad(path, part)
                    bad = found if bad is None else bad | found
            masks = {} if bad is None else {"mask": RepeatedImage(bad, last - first)}
            geometry = np.tile(self._geometry(path, file), (last - first, 1))
            return {"frames": np.concatenate(frames), "positions": np.concatenate(positions), "geometry": geometry} | masks

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """These files do not know the scan's shape."""
        return None

    def _parts(self, path: pathlib.Path, file: h5py.File) -> list[_FrameSet]:
        """Return the sets of frames of a file, in their order; BadInput when their shapes do not belong together."""
        parts = [self._part(path, file, start) for start in self._starts(path, file)]
        for part in parts:
            if part.frames.shape[1:] != parts[0].frames.shape[1:] or part.frames.dtype != parts[0].frames.dtype:
                told = [f"{one.frames.name} holds {one.frames.dtype} of {one.frames.shape[1:]}" for one in (part, parts[0])]
                raise BadInput(f"{path}: {told[0]}, but {told[1]}; the frames of a scan must be alike")
        return parts

    def _starts(self, path: pathlib.Path, file: h5py.File) -> list[str]:
        """Return what paths of the frames begin with, one for each chunk."""
        if not self.places.chunks:
            return [""]
        group = file.get(self.places.chunks)
        numbers = sorted(int(name) for name in group if name.isdecimal()) if isinstance(group, h5py.Group) else []
        if numbers and numbers != list(range(len(numbers))):
            lost = min(set(range(numbers[-1])) - set(numbers))
            raise BadInput(f"{path}: there is no {self.places.chunks}/{lost}, but a {numbers[-1]}; write the file again")
        for number in numbers:
            if file.get(f"{self.places.chunks}/{number}") is None:
                raise Unfinished(f"{path}: {self.places.chunks}/{number} leads to a file that is not there (yet)")
        return [f"{self.places.chunks}/{number}/" for number in numbers] or [f"{self.places.chunks}/0/"]

    def _part(self, path: pathlib.Path, file: h5py.File, start: str) -> _FrameSet:
        frames, positions = (_first(file, places, start) for places in (self.places.frames, self.places.positions))
        for what, found, places in (("frames", frames, self.places.frames), ("positions", positions, self.places.positions)):
            if found is None:
                looked = ", ".join(start + place for place in places)
                raise BadInput(f"{path}: there are no {what} in it; looked for {looked}{hint_of(file, 3)}")
        assert frames is not None
        assert positions is not None
        if frames.ndim != 3 or positions.ndim != 2 or positions.shape[1] <= max(self.places.columns):
            shapes = f"{frames.name} has shape {frames.shape} and {positions.name} {positions.shape}"
            raise BadInput(f"{path}: {shapes}; one image and one position per frame are wanted")
        if len(frames) != len(positions):
            raise BadInput(f"{path}: {len(frames)} frames and {len(positions)} positions; they must belong to the same exposures")
        mask = _first(file, self.places.masks, start) or _first(file, self.places.masks, "")
        if mask is not None and mask.shape not in (frames.shape, frames.shape[1:]):
            raise BadInput(f"{path}: the mask {mask.name} has shape {mask.shape}, the frames have {frames.shape}; they must fit")
        return _FrameSet(frames, positions, mask)

    def _bad(self, path: pathlib.Path, part: _FrameSet) -> NDArray[np.bool_]:
        """Return which pixels (row, column) are bad in any frame of the file, so that it does not depend on what a task reads."""
        assert part.mask is not None
        bad = np.zeros(part.frames.shape[1:], bool)
        for row in range(len(part.frames)) if part.mask.ndim == 3 else [()]:
            values = np.asarray(part.mask[row])
            if values.dtype.kind not in "biuf":
                raise BadInput(f"{path}: the mask {part.mask.name} holds {values.dtype}, not numbers; write it again")
            if self.places.zero_is_bad:
                bad |= ~(values > 0)
            else:
                bad |= (values & ~values.dtype.type(SIGNAL) if values.dtype.kind in "iu" and values.itemsize > 2 else values) != 0
        return bad

    def _geometry(self, path: pathlib.Path, file: h5py.File) -> list[float]:
        """Return energy (keV), distance (m) and pixel (m); NaN for what the file does not say."""
        places = self.places
        energy = _number(file, places.energy, places.energy_unit, "keV")
        wavelength = _number(file, places.wavelength, "m", "m")
        if np.isnan(energy) and wavelength > 0:
            energy = KEV_M / wavelength
        return [energy, _number(file, places.distance, "m", "m"), self._pixel(path, file)]

    def _pixel(self, path: pathlib.Path, file: h5py.File) -> float:
        every = ([_first(file, (place,), "") for place in places] for places in self.places.pixel)
        found = next((some for one in every if (some := [dataset for dataset in one if dataset is not None])), [])
        sizes = [float(size) * _factor(one, "m", "m") for one in found for size in np.ravel(one[()])[:2]]
        if sizes and max(sizes) - min(sizes) > SQUARE * max(sizes):
            raise BadInput(
                f"{path}: the detector's pixels are {sizes[0]:g} m high and {sizes[1]:g} m wide ({found[0].name}); only square "
                "pixels are reconstructed: rebin the frames so that they are, and correct the sizes"
            )
        return sizes[0] if sizes else float("nan")


def _frames(dataset: h5py.Dataset, which: slice, before: int) -> NDArray[Any]:
    """Return some frames of a dataset, with so many frames before it; LostFrames names those that are damaged."""
    try:
        return stored.way_of(dataset, unwritten.written(dataset)).rows(dataset, which.start, which.stop)
    except LostFrames as error:
        raise LostFrames(moved(error.missing, before)) from error


def _number(file: h5py.File, places: Sequence[str], meant: str, wanted: str) -> float:
    """Return a number in the unit wanted; NaN if there is none."""
    found = _first(file, places, "")
    return float("nan") if found is None else float(np.ravel(found[()])[0]) * _factor(found, meant, wanted)


def _factor(dataset: h5py.Dataset, meant: str, wanted: str) -> float:
    """Return by what numbers of a dataset are multiplied; its own units count, else what is meant."""
    try:
        return units.factor(stated_unit(dataset) or meant, wanted)
    except BadInput as error:
        raise BadInput(f"{dataset.file.filename}: {dataset.name}: its attribute units: {error}") from error


def _first(file: h5py.File, places: Sequence[str], start: str) -> h5py.Dataset | None:
    return next((found for place in places if isinstance(found := file.get(start + place), h5py.Dataset)), None)


_DETECTOR = "entry_1/instrument_1/detector_1"
CXI = PtychographyFile(
    DatasetPaths(
        frames=("entry_1/data_1/data", f"{_DETECTOR}/data"),
        positions=(
            "entry_1/data_1/translation",
            "entry_1/sample_1/geometry_1/translation",
            f"{_DETECTOR}/translation",
        ),
        columns=(1, 0),
        energy=("entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/beam_1/incident_beam_energy"),
        energy_unit="J",
        distance=(f"{_DETECTOR}/distance",),
        pixel=((f"{_DETECTOR}/y_pixel_size", f"{_DETECTOR}/x_pixel_size"),),
        masks=(f"{_DETECTOR}/mask", "entry_1/data_1/mask", f"{_DETECTOR}/pixel_mask"),
        zero_is_bad=False,
        wavelength=("entry_1/instrument_1/source_1/wavelength", "entry_1/instrument_1/beam_1/incident_wavelength"),
    )
)
PTYD = PtychographyFile(
    DatasetPaths(
        frames=("data",),
        positions=("positions", "positions_theory"),
        columns=(0, 1),
        energy=("meta/energy", "info/energy"),
        energy_unit="keV",
        distance=("meta/distance", "info/distance"),
        pixel=(("meta/psize",), ("info/psize",)),
        masks=("weights", "meta/weight2d", "info/weight2d"),
        zero_is_bad=True,
        chunks="chunks",
    )
)
