"""MAPS files of APS (MAPS, XRF-Maps): HDF5 with the spectra of a whole map, channel first; index = row * columns + column.

    /MAPS/Spectra/mca_arr, or /MAPS/mca_arr                         (channel, row, column)
    /MAPS/Spectra/Elapsed_Livetime, Elapsed_Realtime,
                  Input_Counts, Output_Counts                       (row, column)
    /MAPS/Scalers/Values, Names, Units, or
    /MAPS/scalers, scaler_names, scaler_units                       (scaler, row, column), (scaler,), (scaler,)

Options: array name -> what it is; {spectra: spectra} where nothing is said.

    spectra                             counts (frame, 1, channel), one detector a file
    scalers/NAME                        the scaler of that name (frame,): x_coord, US_IC …
    Input_Counts                        or another image of /MAPS/Spectra (frame,)
    Input_Counts / Output_Counts        one image divided by another: 1 where both are 0, NaN where only the second is

Dead time is not taken by itself, because files do not say whether their live times hold it: name the images that do, such as
dead_time_factor: Input_Counts / Output_Counts. /MAPS/Scan/x_axis and y_axis are not read: XRF-Maps fills only a part of them; the
scalers x_coord and y_coord are positions. Points that were never written are missing. Fitted maps are no spectra.
Source: XRF-Maps, src/io/file/hdf5_io.h (save_spectra_volume, load_spectra_volume).
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats import filters
from beamtide.formats.base import Extent, LostFrames, Missing
from beamtide.formats.hdf5 import NO_UNIT
from beamtide.formats.opening import opened
from beamtide.formats.recognise import hint_of
from beamtide.formats.unwritten import KnownFrames

SPECTRA = ("MAPS/Spectra/mca_arr", "MAPS/mca_arr")
SCALERS = (("MAPS/Scalers/Values", "MAPS/Scalers/Names"), ("MAPS/scalers", "MAPS/scaler_names"))
UNITS = {"MAPS/Scalers/Values": "MAPS/Scalers/Units", "MAPS/scalers": "MAPS/scaler_units"}
DEFAULT = {"spectra": "spectra"}
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _MapImages:
    """Part of a dataset (…, row, column): all of its first axis, or one of its images."""

    dataset: h5py.Dataset
    lead: tuple[int | slice, ...]

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.dataset.shape[-2:]
        return int(rows), int(columns)

    def read(self, first: int, last: int) -> Array:
        """Return the values (point, …) of points `first <= point < last`; LostFrames names those that cannot be read."""
        try:
            return self._read(first, last)
        except OSError as error:
            if last - first > 1:
                return self._halves(first, last)
            row, column = divmod(first, self.shape[1])
            where = f"{self.dataset.file.filename}: {self.dataset.name}, row {row}, column {column}"
            why = f"{where} cannot be decompressed ({' '.join(str(error).split())}); the file is damaged"
            raise LostFrames((Missing(first, last, why),)) from error

    def _read(self, first: int, last: int) -> Array:
        columns = self.shape[1]
        low, high = first // columns, -(-last // columns)
        begin, end = (first - low * columns, last - low * columns) if high - low == 1 else (0, columns)
        block = np.asarray(self.dataset[(*self.lead, slice(low, high), slice(begin, end))])
        points = block.reshape(*block.shape[:-2], -1).T
        start = first - low * columns - begin
        return np.ascontiguousarray(points[start : start + last - first])

    def _halves(self, first: int, last: int) -> Array:
        middle, parts, lost = (first + last) // 2, list[Array](), list[Missing]()
        for low, high in ((first, middle), (middle, last)):
            try:
                parts.append(self.read(low, high))
            except LostFrames as error:
                lost += error.missing
        if lost:
            raise LostFrames(tuple(lost))
        return np.concatenate(parts)

    def unwritten(self) -> tuple[Missing, ...]:
        """Return the points that were laid out and never written."""
        dataset, (rows, columns) = self.dataset, self.shape
        layout, where = dataset.id.get_create_plist().get_layout(), f"{dataset.file.filename}: {dataset.name}"
        if layout == h5d.VIRTUAL:
            raise BadInput(f"{where} is a virtual dataset, and no program writes MAPS files with these; copy it as one dataset")
        known = KnownFrames()
        if layout == h5d.CONTIGUOUS and dataset.id.get_offset() is None:
            known.lacks(f"{where} was laid out, and never written", np.arange(rows * columns), rows * columns)
        elif layout == h5d.CHUNKED:
            there, across = self._chunks()
            known.lacks(f"{where}: this point was laid out, and never written", there == 0, rows * columns)
            known.lacks(f"{where}: a part of this point was never written", (there > 0) & (there < across), rows * columns)
        return known.missing()

    def _chunks(self) -> tuple[NDArray[np.int64], int]:
        """Return how many chunks each point has, and how many it should have."""
        sizes, chunks, (rows, columns) = self.dataset.shape, self.dataset.chunks, self.shape
        whole = [-(-size // chunk) for size, chunk in zip(sizes, chunks, strict=True)]
        one = [at // chunks[axis] for axis, at in enumerate(self.lead) if isinstance(at, int)]
        across = 1 if one else int(np.prod(whole[:-2]))
        there = np.zeros(whole[-2:], np.int64)

        def see(info: h5d.StoreInfo) -> None:
            *lead, row, column = (at // chunk for at, chunk in zip(info.chunk_offset, chunks, strict=True))
            if (not one or list(lead) == one) and row < whole[-2] and column < whole[-1]:
                there[row, column] += 1

        if self.dataset.id.get_num_chunks() >= int(np.prod(whole)):
            there[:] = across
        else:
            self.dataset.id.chunk_iter(see)
        points = np.repeat(np.repeat(there, chunks[-2], axis=0), chunks[-1], axis=1)
        return points[:rows, :columns].ravel(), across


@dataclass(frozen=True, slots=True)
class MapsFormat:
    """The points of a map, row by row."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many points a map has, and which of them were never written."""
        with opened(path) as file:
            parts = [part for _, found in _parts(file, options or DEFAULT) for part in found]
            rows, columns = _shape(file, parts)
            known = KnownFrames()
            for one in (one for part in parts for one in part.unwritten()):
                known.lacks(one.why, np.arange(one.first, one.last), rows * columns)
            return Extent(rows * columns, known.missing())

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Array]:
        """Return the arrays of points `first <= point < last`; LostFrames if some of them are missing."""
        held = self.probe(path, options)
        if not 0 <= first <= last <= held.frames:
            raise BadInput(f"{path}: points {first} to {last} were asked for, but it holds {held.frames}; was it written again?")
        lost = (Missing(max(first, one.first), min(last, one.last), one.why) for one in held.missing)
        if inside := tuple(one for one in lost if one.first < one.last):
            raise LostFrames(inside)
        with opened(path) as file:
            return {name: _array([part.read(first, last) for part in parts]) for name, parts in _parts(file, options or DEFAULT)}

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the unit of each scaler, as the file states it."""
        with opened(path) as file:
            place, names = _scaler_names(file)
            stated = file.get(UNITS[place]) if place else None
            known = dict(zip(names, _texts(stated), strict=False)) if isinstance(stated, h5py.Dataset) else {}
        told = {
            name: known.get(what.removeprefix("scalers/"), "") for name, what in options.items() if what.startswith("scalers/")
        }
        return {name: unit for name, unit in told.items() if unit.lower() not in NO_UNIT}

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return rows and columns of the map."""
        try:
            with opened(path) as file:
                found = _first(file, (*SPECTRA, *UNITS))
                return None if found is None or found.ndim != 3 or 0 in found.shape else tuple(map(int, found.shape[1:]))
        except BadInput:
            return None


def _parts(file: h5py.File, options: Mapping[str, str]) -> Iterator[tuple[str, list[_MapImages]]]:
    """Yield each array with the part of the file that it is made of, or the two of a quotient."""
    for name, what in options.items():
        yield name, [_part(file, name, one) for one in re.split(r"\s+/\s+", what)]


def _part(file: h5py.File, name: str, what: str) -> _MapImages:
    if what.startswith("scalers/"):
        place, names = _scaler_names(file)
        wanted = what.removeprefix("scalers/")
        if names.count(wanted) != 1:
            there = ", ".join(names) or "no scalers"
            raise BadInput(f"{file.filename}: options.{name}: there are {names.count(wanted)} scalers {wanted!r}, only {there}")
        return _checked(_MapImages(file[place], (names.index(wanted),)), name, 3)
    if what == "spectra":
        found = _first(file, SPECTRA)
        if found is None:
            raise BadInput(f"{file.filename}: there are no spectra in /MAPS{hint_of(file, 3)}")
        return _checked(_MapImages(found, (slice(None),)), name, 3)
    image = file.get(f"MAPS/Spectra/{what}") if re.fullmatch(r"\w+", what) else None
    if not isinstance(image, h5py.Dataset):
        known = "spectra, scalers/NAME, an image of /MAPS/Spectra such as Input_Counts, or one / another"
        raise BadInput(f"{file.filename}: options.{name}: there is no {what!r}; expected {known}")
    return _checked(_MapImages(image, ()), name, 2)


def _checked(part: _MapImages, name: str, axes: int) -> _MapImages:
    """Return a part of the file; BadInput for a dataset that cannot be one."""
    dataset = part.dataset
    where = f"{dataset.file.filename}: options.{name}: {dataset.name}"
    if dataset.ndim != axes or dataset.dtype.kind not in "biuf" or not dataset.size:
        raise BadInput(f"{where} has shape {dataset.shape} of {dataset.dtype}, and not {axes} axes, the last two row and column")
    if not {number for number, _ in filters.filters_of(dataset.id)} <= filters.OWN:
        raise BadInput(f"{where} is compressed with a filter that MAPS files do not have; compress it with gzip")
    return part


def _shape(file: h5py.File, parts: list[_MapImages]) -> tuple[int, int]:
    """Return rows and columns; BadInput if the parts of the file do not have the same."""
    spectra = _first(file, SPECTRA)
    shapes = {part.dataset.name: part.shape for part in parts}
    if spectra is not None and spectra.ndim == 3:
        shapes.setdefault(spectra.name, (int(spectra.shape[1]), int(spectra.shape[2])))
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {rows} x {columns}" for name, (rows, columns) in shapes.items())
        raise BadInput(f"{file.filename}: its images do not have the same rows and columns: {told}")
    return next(iter(shapes.values()))


def _array(values: list[Array]) -> Array:
    if len(values) == 2:
        above, below = (np.asarray(one, np.float64) for one in values)
        ratio = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
        return np.where((above == 0) & (below == 0), 1.0, ratio)
    return values[0][:, None] if values[0].ndim == 2 else values[0]


def _first(file: h5py.File, places: tuple[str, ...]) -> h5py.Dataset | None:
    return next((found for place in places if isinstance(found := file.get(place), h5py.Dataset)), None)


def _scaler_names(file: h5py.File) -> tuple[str, list[str]]:
    """Return where the scalers lie, "" for nowhere, and their names."""
    for values, names in SCALERS:
        if isinstance(file.get(values), h5py.Dataset) and isinstance(found := file.get(names), h5py.Dataset):
            return values, _texts(found)
    return "", []


def _texts(dataset: h5py.Dataset) -> list[str]:
    texts = np.ravel(dataset[()]).tolist()
    return [(one.decode(errors="replace") if isinstance(one, bytes) else str(one)).rstrip("\0 ") for one in texts]


FORMAT = MapsFormat()
