"""Ptychography files of other programs: CXI (and NXcxi_ptycho, which is the same tree), and the `.ptyd` of ptypy.

Both hold frames, positions and geometry together, so a task needs nothing else. Arrays given: "frames" (frame, row, column),
"positions" (frame, 2: vertical, horizontal) in metres, and "geometry" (frame, 3), the same in each row: photon energy in keV,
distance in metres, detector pixel in metres; NaN for what a file does not say.

    CXI    entry_1/data_1/data · entry_1/…/translation (x, y, z) [m] · instrument_1/source_1/energy [J] · detector_1/distance
    ptyd   chunks/0/data · chunks/0/positions (y, x) [m] · meta/energy [keV] · meta/distance · meta/psize

Sources: F. R. N. C. Maia, Nature Methods 9 (2012) 854 and the CXI specification 1.6; ptypy 0.5, ptypy/core/data.py.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent
from beamtide.formats.hdf5 import opened

JOULE_PER_KEV = 1.602176634e-16


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """Paths in a kind of file; of several paths the first that exists counts."""

    frames: tuple[str, ...]
    positions: tuple[str, ...]
    columns: tuple[int, int]
    """Columns of the vertical and the horizontal position."""
    energy: tuple[str, ...]
    kev: float
    """The unit of the energy, in keV."""
    distance: tuple[str, ...]
    pixel: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PtychographyFile:
    """A format of frames, positions and geometry in one file."""

    places: DatasetPaths

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds; BadInput when it does not have as many positions."""
        with opened(path) as file:
            return Extent(len(self._same(path, file)[0]))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, NDArray[Any]]:
        """Return the arrays of frames `first <= frame < last`."""
        with opened(path) as file:
            frames, positions = self._same(path, file)
            if not 0 <= first <= last <= len(frames):
                raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {len(frames)}")
            numbers = [
                self._number(file, self.places.energy) * self.places.kev,
                self._number(file, self.places.distance),
                self._number(file, self.places.pixel),
            ]
            return {
                "frames": frames[first:last],
                "positions": np.asarray(positions[first:last], np.float64)[:, list(self.places.columns)],
                "geometry": np.tile(numbers, (last - first, 1)),
            }

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """These files do not know the scan's shape."""
        return None

    def _same(self, path: pathlib.Path, file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
        frames, positions = _first(file, self.places.frames), _first(file, self.places.positions)
        for what, found, places in (("frames", frames, self.places.frames), ("positions", positions, self.places.positions)):
            if found is None:
                raise BadInput(f"{path}: there are no {what} in it; looked for {', '.join(places)}")
        assert frames is not None
        assert positions is not None
        if frames.ndim != 3 or positions.ndim != 2 or positions.shape[1] <= max(self.places.columns):
            shapes = f"{frames.name} has shape {frames.shape} and {positions.name} {positions.shape}"
            raise BadInput(f"{path}: {shapes}; one image and one position per frame are wanted")
        if len(frames) != len(positions):
            raise BadInput(f"{path}: {len(frames)} frames and {len(positions)} positions; they must belong to the same exposures")
        return frames, positions

    def _number(self, file: h5py.File, places: Sequence[str]) -> float:
        found = _first(file, places)
        return float("nan") if found is None else float(np.ravel(found[()])[0])


def _first(file: h5py.File, places: Sequence[str]) -> h5py.Dataset | None:
    return next((found for place in places if isinstance(found := file.get(place), h5py.Dataset)), None)


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
        kev=1 / JOULE_PER_KEV,
        distance=(f"{_DETECTOR}/distance",),
        pixel=(f"{_DETECTOR}/x_pixel_size",),
    )
)
PTYD = PtychographyFile(
    DatasetPaths(
        frames=("chunks/0/data",),
        positions=("chunks/0/positions", "chunks/0/positions_theory"),
        columns=(0, 1),
        energy=("meta/energy", "info/energy"),
        kev=1.0,
        distance=("meta/distance", "info/distance"),
        pixel=("meta/psize", "info/psize"),
    )
)
