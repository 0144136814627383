"""Image files of Eiger-like detectors: HDF5, one compressed chunk per frame, read frame by frame.

    options: {frames: /entry/data/data}      array name -> dataset path, as for `hdf5`; default as shown

A master file has no such dataset, but /entry/data/data_000001, data_000002 … in files of their own: these are taken in turn.
Where a data file says which images of the series it holds (`image_nr_low`, from 1), its frames stand at their number: a data file
that is missing leaves a gap. Frames are `StoredFrames`: each is decompressed when it is asked for (`rows`).
Source: DECTRIS, SIMPLON API reference 1.8, file writer.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats import rows as stored
from beamtide.formats import unwritten
from beamtide.formats.base import Extent, LostFrames, Missing, Unfinished, moved
from beamtide.formats.lazy import LazyFrames, joined
from beamtide.formats.links import find
from beamtide.formats.natural import natural
from beamtide.formats.opening import opened

DEFAULT = {"frames": "/entry/data/data"}
COUNTED = "image_nr_low"


class StoredFrames(LazyFrames):
    """Frames `first` to `last` of a dataset. LostFrames: some of them were never written."""

    def __init__(self, path: pathlib.Path, where: str, rows: tuple[int, int]) -> None:
        self._path, self._where, self._first = path, where, rows[0]
        with opened(path) as file:
            found = find(file, where)
            known = unwritten.require(found, *rows)
            super().__init__((rows[1] - rows[0], *found.shape[1:]), found.dtype)
            self.way = stored.way_of(found, known)

    def read(self, rows: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield these frames; the file is opened once for all of them. LostFrames names one that cannot be read."""
        with opened(self._path) as file:
            try:
                yield from self.way.frames(file[self._where], [self._first + row for row in rows])
            except LostFrames as error:
                raise LostFrames(moved(error.missing, -self._first)) from error


@dataclass(frozen=True, slots=True)
class SeriesPart:
    """A dataset of a series: its frames stand from `start` on."""

    where: str
    start: int
    frames: int
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True)
class EigerFormat:
    """Frames in the chunks of HDF5 datasets."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds, and which of them are missing."""
        with opened(path) as file:
            series = [_series(file, where) for where in (options or DEFAULT).values()]
            count = min(parts[-1].start + parts[-1].frames for parts in series)
            missing = (moved(part.missing, part.start) for parts in series for part in parts)
            return Extent(count, unwritten.union(missing, count), _count(file, options))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the frames `first <= frame < last`, not yet read; LostFrames if some of them are missing."""
        found = self.probe(path, options)
        if not 0 <= first <= last <= found.frames:
            raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {found.frames}; was it written again?")
        lost = tuple(one for one in found.missing if one.first < last and first < one.last)
        if lost:
            raise LostFrames(tuple(Missing(max(first, one.first), min(last, one.last), one.why) for one in lost))
        with opened(path) as file:
            series = {name: _series(file, where) for name, where in (options or DEFAULT).items()}
        return {name: joined(_frames(path, parts, first, last)) for name, parts in series.items()}

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return nothing: these files do not know the scan."""
        return None


def _frames(path: pathlib.Path, parts: Sequence[SeriesPart], first: int, last: int) -> list[StoredFrames]:
    inside = ((part, max(first, part.start), min(last, part.start + part.frames)) for part in parts)
    found = [StoredFrames(path, part.where, (low - part.start, high - part.start)) for part, low, high in inside if low < high]
    return found or [StoredFrames(path, parts[0].where, (0, 0))]


def _series(file: h5py.File, where: str) -> list[SeriesPart]:
    """Return the datasets behind a path: one, or those that are numbered with its name."""
    group, _, name = where.rstrip("/").rpartition("/")
    holder = file.get(group or "/")
    numbered = re.compile(re.escape(name) + r"_\d+")
    own = sorted(filter(numbered.fullmatch, holder.keys()), key=natural) if isinstance(holder, h5py.Group) else []
    if not own or where in file:
        found = _images(find(file, where))
        return [SeriesPart(where, 0, len(found), unwritten.written(found).missing())]
    parts: list[SeriesPart] = []
    typical, base = _typical(file, group, own)
    first = int(own[0].rpartition("_")[2])
    for number, one in enumerate(own):
        path, at = f"{group}/{one}", parts[-1].start + parts[-1].frames if parts else 0
        try:
            found = _images(find(file, path))
        except Unfinished as error:
            start = max(at, (int(one.rpartition("_")[2]) - first) * typical)
            parts += _gap(file, path, at, start)
            parts.append(SeriesPart(path, start, typical, (Missing(0, typical, str(error)),)))
            continue
        low = found.attrs.get(COUNTED)
        start = at if low is None else int(low) - base
        if start < at:
            raise BadInput(f"{file.filename}: {path} begins with image {low}, which stands in {own[number - 1]}, too")
        parts += _gap(file, path, at, start)
        parts.append(SeriesPart(path, start, len(found), unwritten.written(found).missing()))
    return parts


def _gap(file: h5py.File, path: str, start: int, stop: int) -> list[SeriesPart]:
    """Return what stands for images of a series that no data file holds."""
    why = f"{file.filename}: no data file holds this image of the series"
    return [SeriesPart(path, start, stop - start, (Missing(0, stop - start, why),))] if stop > start else []


def _typical(file: h5py.File, group: str, names: Sequence[str]) -> tuple[int, int]:
    """Return how many frames a data file holds, as those that are there, and the number of the first image."""
    there = [one for name in names if isinstance(one := file.get(f"{group}/{name}"), h5py.Dataset)]
    if not there:
        find(file, f"{group}/{names[0]}")  # says why
    return max(len(one) for one in there), int(1 if there[0].attrs.get(COUNTED) is None else min(1, there[0].attrs[COUNTED]))


def _images(found: h5py.Dataset) -> h5py.Dataset:
    if not found.ndim:
        raise BadInput(f"{found.file.filename}: {found.name} is a single value, not one row per frame; name another dataset")
    return found


def _count(file: h5py.File, options: Mapping[str, str]) -> int | None:
    """Return the detector's count, from 0, of the first frame of a data file; None where it says none."""
    found = (file.get(where) for where in (options or DEFAULT).values())
    counts = {int(one.attrs[COUNTED]) - 1 for one in found if isinstance(one, h5py.Dataset) and COUNTED in one.attrs}
    return counts.pop() if len(counts) == 1 else None


FORMAT = EigerFormat()
