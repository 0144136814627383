"""Which frames of an HDF5 dataset were never written: HDF5 reads them as zeros, and they are no measurement.

Theory: space is laid out before it is written, so what is not there shows in where things lie:
- a chunk that has no place in the file was never written (a scan that was aborted, or still runs);
- a dataset in one block that has no place was never written at all;
- a virtual dataset shows the fill value where a source file is not there, lacks the dataset, is too short, or was itself not
  written; and where no source is laid over a frame.
Datasets whose place is given to them as a whole (contiguous, or chunks that are allocated early) do not show it. Sources of a
virtual dataset are looked for where HDF5 looks: beside the file, and in the working folder; "%b" in a name counts blocks.
Source: HDF5 reference manual, H5Dget_num_chunks and H5Pset_virtual.
"""

import itertools
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import LostFrames, Missing
from beamtide.formats.filters import filters_of
from beamtide.formats.opening import opened

DEEPEST = 8
"""Virtual datasets of virtual datasets, at most."""
UNLIMITED = 2**64 - 1
Rows = NDArray[np.int64]


@dataclass(slots=True)
class KnownFrames:
    """What is known of the frames of one dataset."""

    reasons: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Why frames are missing -> which."""
    filters: set[int] = field(default_factory=set)
    """The filters of the dataset and of all that it is made of."""

    def missing(self, first: int = 0) -> tuple[Missing, ...]:
        """Return the missing frames as ranges, counted from `first`; each with the first reason that it has."""
        if not self.reasons:
            return ()
        why = list(self.reasons)
        code = np.zeros(len(self.reasons[why[0]]), np.int64)
        for number, reason in reversed(list(enumerate(why, 1))):
            code[self.reasons[reason]] = number
        edges = np.flatnonzero(np.diff(code, prepend=0, append=0))
        ranges = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        return tuple(Missing(first + low, first + high, why[code[low] - 1]) for low, high in ranges if code[low])

    def lacks(self, why: str, rows: NDArray[Any], count: int) -> None:
        """Note that frames (a mask, or numbers) are missing."""
        self.reasons.setdefault(why, np.zeros(count, np.bool_))[rows] = True


def written(dataset: h5py.Dataset, depth: int = 0) -> KnownFrames:
    """Return what is known of the frames of a dataset. Unfinished, BadInput: one of its sources cannot be opened."""
    found, count = KnownFrames({}, {number for number, _ in filters_of(dataset.id)}), len(dataset)
    where = f"{dataset.file.filename}: {dataset.name}"
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5d.VIRTUAL:
        _virtual(dataset, found, depth)
    elif layout == h5d.CHUNKED and dataset.size:
        there = _chunks(dataset)
        if there is not None:
            found.lacks(f"{where}: this frame was laid out, and never written", there == 0, count)
            across = _across(dataset)
            found.lacks(f"{where}: a part of this frame was never written", (there > 0) & (there < across), count)
    elif layout == h5d.CONTIGUOUS and dataset.size and dataset.id.get_offset() is None:
        found.lacks(f"{where} was laid out, and never written", np.arange(count), count)
    found.reasons = {why: rows for why, rows in found.reasons.items() if rows.any()}
    return found


def union(parts: Iterable[tuple[Missing, ...]], count: int) -> tuple[Missing, ...]:
    """Return which of the first `count` frames are missing in at least one of several datasets or files."""
    whole = KnownFrames()
    for one in itertools.chain.from_iterable(parts):
        if one.first < count:
            whole.lacks(one.why, np.arange(one.first, min(one.last, count)), count)
    return whole.missing()


def require(dataset: h5py.Dataset, first: int, last: int) -> KnownFrames:
    """Return what is known of a dataset; LostFrames if one of the frames `first <= frame < last` is missing."""
    found = written(dataset)
    if lost := found.missing():
        inside = tuple(Missing(max(first, one.first), min(last, one.last), one.why) for one in lost)
        if inside := tuple(one for one in inside if one.first < one.last):
            raise LostFrames(inside)
    return found


def _across(dataset: h5py.Dataset) -> int:
    return int(np.prod([-(-size // chunk) for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]))


def _chunks(dataset: h5py.Dataset) -> Rows | None:
    """Return how many of its chunks each frame has; None where all have all."""
    per, count = dataset.chunks[0], len(dataset)
    rows = -(-count // per)
    if dataset.id.get_num_chunks() >= rows * _across(dataset):
        return None
    there = np.zeros(rows, np.int64)

    def see(info: h5d.StoreInfo) -> None:
        if info.chunk_offset[0] < count:
            there[info.chunk_offset[0] // per] += 1

    dataset.id.chunk_iter(see)
    return np.repeat(there, per)[:count]


def _virtual(dataset: h5py.Dataset, found: KnownFrames, depth: int) -> None:
    where, count = f"{dataset.file.filename}: {dataset.name}", len(dataset)
    covered = np.zeros(count, np.bool_)
    if depth >= DEEPEST:
        raise BadInput(f"{where} is a virtual dataset of virtual datasets, {DEEPEST} deep; write it flat")
    for source in dataset.virtual_sources():
        for name, rows, own in _blocks(source, count):
            covered[rows] = True
            _source(dataset, (name, source.dset_name), (rows, own), found, depth)
    found.lacks(f"{where}: no source file is laid over this frame", ~covered, count)


def _source(
    dataset: h5py.Dataset, target: tuple[str, str], rows: tuple[Rows, Rows | None], found: KnownFrames, depth: int
) -> None:
    """Note which frames `rows[0]` of a virtual dataset its source (file, dataset; frames `rows[1]`, None: all) does not give."""
    (name, path), (mine, own), count = target, rows, len(dataset)
    frame, file = f"{dataset.file.filename}: {dataset.name}: the source file", place(pathlib.Path(dataset.file.filename), name)
    if file is None:
        found.lacks(f"{frame} {name} of this frame is not there (yet)", mine, count)
        return
    with opened(file) as one:
        source = one.get(path)
        if not isinstance(source, h5py.Dataset):
            found.lacks(f"{frame} {name} of this frame has no dataset {path} (yet)", mine, count)
            return
        below, length = (written(source, depth + 1), len(source)) if source.ndim else (KnownFrames(), 1)
        found.filters |= below.filters
        own = np.arange(len(mine)) if own is None else own
        if source.ndim != dataset.ndim or len(own) != len(mine):  # not frame for frame: all of it or nothing
            for why in below.reasons:
                found.lacks(why, mine, count)
            return
        found.lacks(f"{frame} {name} has only {length} frames (yet)", mine[own >= length], count)
        mine, own = mine[own < length], own[own < length]
        for why, bad in below.reasons.items():
            found.lacks(why, mine[bad[own]], count)


def _blocks(source: Any, count: int) -> Iterator[tuple[str, Rows, Rows | None]]:
    """Yield the file, the frames of the virtual dataset and those of the source (None: all) of each block of a mapping."""
    rows = _rows(source.vspace, count)
    own = None if source.src_space.get_select_type() == h5s.SEL_ALL else _rows(source.src_space, UNLIMITED)
    if "%b" not in source.file_name and "%b" not in source.dset_name:
        if own is not None and len(own) == 0:  # unlimited: as many as there are
            start = source.src_space.get_regular_hyperslab()[0][0]
            own = start + np.arange(len(rows))
        yield source.file_name, rows, own
        return
    start, stride, _, block = (part[0] for part in source.vspace.get_regular_hyperslab())
    for number in range(-(-max(0, count - start) // stride)):
        mine = start + number * stride + np.arange(block)
        yield source.file_name.replace("%b", str(number)), mine[mine < count], own


def _rows(space: h5s.SpaceID, count: int) -> Rows:
    """Return the frames that a selection covers, in order; none of a selection without an end in a space without one."""
    if space.get_select_type() == h5s.SEL_ALL:
        return np.arange(space.shape[0] if space.shape else 0)
    if space.is_regular_hyperslab():
        start, stride, many, block = (part[0] for part in space.get_regular_hyperslab())
        if UNLIMITED in (many, block):
            if count == UNLIMITED:
                return np.empty(0, np.int64)
            many, block = (-(-max(0, count - start) // stride), block) if many == UNLIMITED else (1, max(0, count - start))
        found = (start + stride * np.arange(many)[:, None] + np.arange(block)).ravel()
        return np.asarray(found[found < count] if count != UNLIMITED else found, np.int64)
    low, high = space.get_select_bounds()
    return np.arange(low[0], high[0] + 1)


def place(file: pathlib.Path, name: str) -> pathlib.Path | None:
    """Return the file that a name in `file` leads to, as HDF5 looks for it; None if there is none. "." is the file itself."""
    if name == ".":
        return file
    candidates = (file.parent / name, file.parent / pathlib.Path(name).name, pathlib.Path.cwd() / name)
    return next((one for one in candidates if one.is_file()), None)
