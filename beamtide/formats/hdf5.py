"""HDF5 files: a format is a list of datasets whose first axis is the frame.

Every format of this package is an `HdfFormat`: `layout` says which datasets make up a file, `assemble` turns their rows into the
arrays that a modality gets. The plain format `hdf5` takes its layout from the options: array name -> dataset path. XRF wants
"spectra" (frame, detector, channel) and, where there is one, "dead_time_factor" (frame, detector).

Options of any of these formats: `trigger` names the dataset that counts triggers: row i then belongs to that index, not to i.
A lost one is NaN in columns, and missing for images and spectra (`formats.trigger`). `point_axes: "2"` says that the first two
axes of each dataset are line and column of the scan, not one axis of frames.

Rules: only the rows that are asked for are read; a file is open only during one call. A file that does not open (locked by
its writer, truncated, not yet there) is Unfinished; one that opens but lacks what was configured is BadInput. Frames that were
laid out and never written are missing, not zeros (`unwritten`); a chunk that cannot be decompressed costs its frames (`rows`).
"""

import itertools
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats import rows, unwritten
from beamtide.formats.base import Extent, LostFrames, Missing
from beamtide.formats.links import find
from beamtide.formats.opening import opened
from beamtide.formats.recognise import hint_of
from beamtide.formats.trigger import first_of, indexes, spread

Layout = Callable[[h5py.File, Mapping[str, str]], dict[str, str]]
"""Open file and options in, column name -> dataset path out."""
Columns = dict[str, NDArray[Any]]
RESERVED = ("trigger", "first_trigger", "point_axes")
"""Options that name no dataset."""


NO_UNIT = frozenset({"", "none", "n/a", "na", "unknown", "a.u.", "arb", "arbitrary", "arbitrary units", "any"})
"""What files say that know no unit."""


def _no_shape(path: pathlib.Path) -> tuple[int, ...] | None:
    return None


@dataclass(frozen=True, slots=True)
class HdfFormat:
    """Frames in the rows of HDF5 datasets."""

    layout: Layout
    assemble: Callable[[Columns], Columns] = dict
    shape_of: Callable[[pathlib.Path], tuple[int, ...] | None] = _no_shape
    any_axes: bool = False
    """Whether the axes behind the first may be anything: then the scan has to show which they are."""
    uneven: bool = False
    """Whether one dataset may be longer than another for now: then what the shortest has is there."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds, and which of them are missing."""
        with opened(path) as file:
            found = _table(path, file, self.layout(file, options), options, uneven=self.uneven)
            return Extent(found.length, found.missing(), *found.counted(), shape=_shared(found.datasets) if self.any_axes else ())

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the unit of each column whose dataset has an attribute `units`."""
        with opened(path) as file:
            stated = {name: stated_unit(one) for name, one in datasets(file, self.layout(file, options)).items()}
        return {name: unit for name, unit in stated.items() if unit}

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> Columns:
        """Return the arrays of frames `first <= frame < last`; LostFrames if some of them are missing."""
        with opened(path) as file:
            found = _table(path, file, self.layout(file, options), options, uneven=self.uneven)
            if not 0 <= first <= last <= found.length:
                raise BadInput(
                    f"{path}: frames {first} to {last} were asked for, but it holds {found.length}; was it written again?"
                )
            lost = tuple(one for one in found.missing() if one.first < last and first < one.last)
            if lost:
                raise LostFrames(tuple(Missing(max(first, one.first), min(last, one.last), one.why) for one in lost))
            return self.assemble(found.read(first, last))


def stated_unit(dataset: h5py.Dataset) -> str:
    """Return what the attribute `units` of a dataset says, "" if it has none or says that there is none."""
    stated = np.ravel(dataset.attrs.get("units", ""))
    first = stated[0] if stated.size else ""
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    return "" if text.strip().lower() in NO_UNIT else text.strip()


@dataclass(frozen=True, slots=True)
class _Table:
    """The datasets of a file with one row per frame, or per line of frames, and what is known of them."""

    datasets: Mapping[str, h5py.Dataset]
    rows: int
    columns: int
    """Frames in a row of the datasets: 1, or the columns of the scan."""
    index: NDArray[np.int64] | None
    """To which frame each row belongs, where triggers are counted."""
    known: Mapping[str, unwritten.KnownFrames] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return self.rows * self.columns if self.index is None else int(self.index.max(initial=-1)) + 1

    def counted(self) -> tuple[int | None, int]:
        """Return the count of frame 0 and the first frame that is there, where triggers are counted."""
        return (None, 0) if self.index is None else (0, int(self.index[0]) if self.index.size else 0)

    def missing(self) -> tuple[Missing, ...]:
        """Return the frames that were never written, and those whose trigger was lost where that is not NaN."""
        whole = unwritten.KnownFrames()
        for one in self.known.values():
            for why, mask in one.reasons.items():
                mask = mask[: self.rows]
                at = np.flatnonzero(np.repeat(mask, self.columns)) if self.index is None else self.index[mask]
                whole.lacks(why, at, self.length)
        if self.index is not None and any(dataset.ndim > 1 for dataset in self.datasets.values()):
            lost = np.ones(self.length, np.bool_)
            lost[self.index] = False
            if lost.any():
                whole.lacks("the detector lost the trigger of this frame: its number was not counted", lost, self.length)
        return whole.missing()

    def read(self, first: int, last: int) -> Columns:
        low, high = (first, last) if self.index is None else np.searchsorted(self.index, [first, last]).tolist()
        if self.columns > 1:
            low, high = first // self.columns, -(-last // self.columns)
        found: Columns = {}
        lost: list[Missing] = []
        for name, dataset in self.datasets.items():
            try:
                found[name] = rows.way_of(dataset, self.known[name]).rows(dataset, low, high)
            except LostFrames as error:
                lost += [self._frames(one) for one in error.missing]
        if lost:
            inside = (Missing(max(first, one.first), min(last, one.last), one.why) for one in lost)
            raise LostFrames(tuple(one for one in inside if one.first < one.last))
        if self.columns > 1:
            flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in found.items()}
            return {name: array[first - low * self.columns : last - low * self.columns] for name, array in flat.items()}
        return found if self.index is None else spread(found, self.index[low:high], first, last)

    def _frames(self, lost: Missing) -> Missing:
        """Return which frames are missing, where these rows are."""
        if self.index is None:
            return Missing(lost.first * self.columns, lost.last * self.columns, lost.why)
        return Missing(int(self.index[lost.first]), int(self.index[lost.last - 1]) + 1, lost.why)


def _table(path: pathlib.Path, file: h5py.File, layout: Mapping[str, str], options: Mapping[str, str], *, uneven: bool) -> _Table:
    found = datasets(file, layout)
    length = min(map(len, found.values())) if uneven else _length(path, found)
    axes = options.get("point_axes", "1")
    if axes not in ("1", "2") or (axes == "2" and "trigger" in options):
        raise BadInput(f'{path}: options.point_axes is {axes!r}; expected "1", or "2" for (line, column, …) without trigger')
    columns = _columns(path, found) if axes == "2" else 1
    known = {name: unwritten.written(dataset) for name, dataset in found.items()}
    return _Table(found, length, columns, _triggers(file, options, length, uneven=uneven), known)


def _columns(path: pathlib.Path, found: Mapping[str, h5py.Dataset]) -> int:
    shapes = {dataset.name: dataset.shape for dataset in found.values()}
    if any(len(shape) < 2 for shape in shapes.values()) or len({shape[:2] for shape in shapes.values()}) > 1:
        raise BadInput(f"{path}: with point_axes: 2 all datasets must begin with the same line and column, but they are {shapes}")
    return int(next(iter(shapes.values()))[1])


def _shared(found: Mapping[str, h5py.Dataset]) -> tuple[int, ...]:
    """Return the first axes that all datasets share."""
    shapes = [dataset.shape for dataset in found.values()]
    same = itertools.takewhile(lambda sizes: len(set(sizes)) == 1, zip(*shapes, strict=False))
    return tuple(int(sizes[0]) for sizes in same)


def datasets(file: h5py.File, layout: Mapping[str, str]) -> dict[str, h5py.Dataset]:
    """Return the datasets of a layout; BadInput names the first that is missing, and what stands in its place."""
    return {name: _dataset(file, where) for name, where in layout.items()}


def _dataset(file: h5py.File, where: str) -> h5py.Dataset:
    found = find(file, where)
    if not found.ndim:
        raise BadInput(f"{file.filename}: {where} is a single value, not one row per frame; name another dataset")
    if found.ndim == 3 and "MAPS" in file:  # channels or scalers, one image of the map each
        shape = " x ".join(map(str, found.shape))
        raise BadInput(f"{file.filename}: {where} is {shape}, rows and columns of the map last{hint_of(file)}")
    return found


def _length(path: pathlib.Path, found: Mapping[str, h5py.Dataset]) -> int:
    lengths = {name: len(dataset) for name, dataset in found.items()}
    if len(set(lengths.values())) > 1:
        shortest, longest = (pick(lengths, key=lambda name: lengths[name]) for pick in (min, max))
        raise BadInput(
            f"{path}: {found[longest].name} has {lengths[longest]} frames but {found[shortest].name} has {lengths[shortest]}; "
            "they must belong to the same frames"
        )
    return next(iter(lengths.values()))


def _from_options(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    if not options.keys() - set(RESERVED):
        raise BadInput("source.options is empty; for format hdf5 it names the datasets, such as {spectra: /entry/data/data}")
    return {name: where for name, where in options.items() if name not in RESERVED}


def _triggers(file: h5py.File, options: Mapping[str, str], length: int, *, uneven: bool) -> NDArray[np.int64] | None:
    """Return the index of each row where `options.trigger` names the dataset that counts them; None: row i is index i."""
    if "trigger" not in options:
        return None
    numbers = _dataset(file, options["trigger"])
    if len(numbers) != length and not uneven:
        raise BadInput(
            f"{file.filename}: {numbers.name} has {len(numbers)} rows, the others have {length}; correct options.trigger"
        )
    return indexes(numbers[:length], first_of(options, file.filename), f"{file.filename}, {numbers.name}")


FORMAT = HdfFormat(layout=_from_options, any_axes=True)
