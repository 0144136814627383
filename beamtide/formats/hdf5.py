"""HDF5 files: a format is a list of datasets whose first axis is the frame.

Every format of this package is an `HdfFormat`: `layout` says which datasets make up a file, `assemble` turns their rows into the
arrays that a modality gets. The plain format `hdf5` takes its layout from the options: array name -> dataset path. XRF wants
"spectra" (frame, detector, channel) and, where there is one, "dead_time_factor" (frame, detector). The option `trigger`, of any
of these formats, names the dataset that counts triggers: row i then belongs to that index, not to index i, and a lost one is NaN
(`formats.trigger`).

Rules: only the rows that are asked for are read; a file is open only during one call. A file that does not open (locked by
its writer, truncated, not yet there) is Unfinished; one that opens but lacks what was configured is BadInput. HDF5's file locking
stays on: it is what tells us that a writer still holds the file.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent, Unfinished
from beamtide.formats.trigger import first_of, indexes, spread

Layout = Callable[[h5py.File, Mapping[str, str]], dict[str, str]]
"""Open file and options in, column name -> dataset path out."""
Columns = dict[str, NDArray[Any]]


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

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames a file holds."""
        with opened(path) as file:
            length = _length(path, datasets(file, self.layout(file, options)))
            index = _triggers(file, options, length)
            return Extent(length if index is None else int(index.max(initial=-1)) + 1)

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the unit of each column whose dataset has an attribute `units`."""
        with opened(path) as file:
            stated = {name: stated_unit(one) for name, one in datasets(file, self.layout(file, options)).items()}
        return {name: unit for name, unit in stated.items() if unit}

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> Columns:
        """Return the arrays of frames `first <= frame < last`."""
        with opened(path) as file:
            found = datasets(file, self.layout(file, options))
            length = _length(path, found)
            index = _triggers(file, options, length)
            length = length if index is None else int(index.max(initial=-1)) + 1
            if not 0 <= first <= last <= length:
                raise BadInput(f"{path}: frames {first} to {last} were asked for, but it holds {length}; was it written again?")
            if index is None:
                return self.assemble({name: dataset[first:last] for name, dataset in found.items()})
            low, high = np.searchsorted(index, [first, last])
            rows = self.assemble({name: dataset[low:high] for name, dataset in found.items()})
            return spread(rows, index[low:high], first, last)


def stated_unit(dataset: h5py.Dataset) -> str:
    """Return what the attribute `units` of a dataset says, "" if it has none or says that there is none."""
    stated = np.ravel(dataset.attrs.get("units", ""))
    first = stated[0] if stated.size else ""
    text = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
    return "" if text.strip().lower() in NO_UNIT else text.strip()


@contextmanager
def opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """Open a file for reading, as long as the block lasts; Unfinished and BadInput say why it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise Unfinished(f"{path} is not there (yet); check roots.raw and source.match") from error
    except PermissionError as error:
        raise BadInput(f"{path} may not be read by this account; ask for read permission on it") from error
    except (OSError, RuntimeError) as error:
        if "filter" in str(error):
            raise BadInput(f"{path}: its compression is not known here ({error}); install hdf5plugin") from error
        raise Unfinished(f"{path} cannot be read; it is still being written, or damaged ({error})") from error


def datasets(file: h5py.File, layout: Mapping[str, str]) -> dict[str, h5py.Dataset]:
    """Return the datasets of a layout; BadInput names the first that is missing, and what stands in its place."""
    return {name: _dataset(file, where) for name, where in layout.items()}


def _dataset(file: h5py.File, where: str) -> h5py.Dataset:
    found = file.get(where)
    if isinstance(found, h5py.Dataset) and found.ndim:
        return found
    if isinstance(found, h5py.Dataset):
        raise BadInput(f"{file.filename}: {where} is a single value, not one row per frame; name another dataset")
    parent = file
    for part in where.strip("/").split("/"):
        below = parent.get(part)
        if not isinstance(below, h5py.Group):
            break
        parent = below
    there = ", ".join(sorted(parent)[:12]) or "nothing"
    raise BadInput(f"{file.filename}: there is no dataset {where}; {parent.name} holds {there}; correct source.options")


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
    if not options:
        raise BadInput("source.options is empty; for format hdf5 it names the datasets, such as {spectra: /entry/data/data}")
    return {name: where for name, where in options.items() if name not in ("trigger", "first_trigger")}


def _triggers(file: h5py.File, options: Mapping[str, str], length: int) -> NDArray[np.int64] | None:
    """Return the index of each row where `options.trigger` names the dataset that counts them; None: row i is index i."""
    if "trigger" not in options:
        return None
    numbers = _dataset(file, options["trigger"])
    if len(numbers) != length:
        raise BadInput(
            f"{file.filename}: {numbers.name} has {len(numbers)} rows, the others have {length}; correct options.trigger"
        )
    return indexes(numbers[()], first_of(options, file.filename), f"{file.filename}, {numbers.name}")


FORMAT = HdfFormat(layout=_from_options)
