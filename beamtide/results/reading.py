"""Reads results from their HDF5 files, without any service.

    results = beamtide.open("scan_1", processed="/beamtime/processed")
    iron = results["xrf/area/Fe_K"]          # a map where there is one, else one row per acquisition index
    iron.values, iron.units, iron.coords["x"]
    results.rows("xrf/area/Fe_K")            # always by acquisition index

Names are "<pipeline>/<dataset>". A scan that still runs is read from its live files: call `open` or the dataset again to see
more. A file is opened for each reading and closed at once, so readers never block the writer.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.results import checksum, layout

Array = NDArray[Any]
Where = str | pathlib.Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """One named array with units; `axes` names its dimensions where they have names, `coords` has their values."""

    name: str
    values: Array
    units: str = "1"
    axes: tuple[str, ...] = ()
    coords: Mapping[str, Array] = field(default_factory=dict)
    coord_units: Mapping[str, str] = field(default_factory=dict)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Let numpy take it as an array."""
        return np.array(self.values, dtype=dtype, copy=copy)

    def plot(self) -> Any:
        """Draw it with matplotlib and return the axes of the figure."""
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise BadInput("plotting needs matplotlib: pip install matplotlib") from error
        labels = [f"{axis} ({self.coord_units.get(axis, '1')})" for axis in self.axes]
        figure, axes = pyplot.subplots()
        if self.values.ndim == 2 and len(self.axes) == 2:
            image = axes.pcolormesh(self.coords[self.axes[1]], self.coords[self.axes[0]], self.values, shading="nearest")
            figure.colorbar(image, label=self.units)
            axes.set(xlabel=labels[1], ylabel=labels[0], title=self.name, aspect="equal")
        else:
            across = self.coords[self.axes[0]] if self.axes else np.arange(len(self.values))
            axes.plot(across, self.values)
            axes.set(xlabel=labels[0] if labels else "index", ylabel=f"{self.name} ({self.units})")
        return axes


class ScanResults(Mapping[str, Dataset]):
    """The results of one scan, by name; made by `open`."""

    def __init__(self, scan: str, files: Mapping[str, pathlib.Path]) -> None:
        self.scan, self.files = scan, dict(files)
        self._names = [f"{stem}/{name}" for stem, path in self.files.items() for name in _names_in(path)]

    def __repr__(self) -> str:
        return f"<results of {self.scan}: {', '.join(self._names)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        """Whether there is a dataset of this name."""
        return name in self._names

    def __getitem__(self, name: str) -> Dataset:
        """Return a dataset: drawn on its axes where it is a map, a curve or a spectrum, else by acquisition index."""
        with _opened(self._file_of(name)) as root:
            inner = name.partition("/")[2]
            for place in ("maps", "curves", "spectra"):
                if (drawn := root.get(f"entry/{place}/{inner}")) is not None and "signal" in drawn.attrs:
                    return _drawn(name, drawn)
            return _plain(name, root[f"entry/data/{inner}"])

    def rows(self, name: str) -> Dataset:
        """Return a dataset by acquisition index, as it was computed."""
        with _opened(self._file_of(name)) as root:
            return _plain(name, root[f"entry/data/{name.partition('/')[2]}"])

    def _file_of(self, name: str) -> pathlib.Path:
        if name not in self._names:
            raise BadInput(f"{self.scan} has no dataset {name!r}; there are: {', '.join(self._names) or 'none yet'}.")
        return self.files[name.partition("/")[0]]


def open(scan: str, processed: Where = ".") -> ScanResults:  # noqa: A001 - users write beamtide.open(...)
    """Return the results of a scan below the folder `processed`; a finished file is preferred to a live one."""
    folder = layout.scan_folder(pathlib.Path(processed), scan)
    found = {path.name.removesuffix(".live.h5"): path for path in _files(folder, "*.live.h5")}
    found |= {path.name.removesuffix(".h5"): path for path in _files(folder, "*.h5") if not path.name.endswith(".live.h5")}
    if not found:
        known = ", ".join(list_results(processed)) or "none"
        raise BadInput(f"there are no results of {scan!r} in {folder}; scans with results there: {known}.")
    return ScanResults(scan, dict(sorted(found.items())))


def list_results(processed: Where = ".") -> list[str]:
    """Return the names of the scans that have results."""
    return sorted({path.parent.name for path in _files(pathlib.Path(processed) / "beamtide", "*/*.h5")})


def verify(file: Where) -> list[str]:
    """Compare every array of a finished file with its checksum and return what is wrong, one sentence each."""
    problems: list[str] = []

    def one(name: str, item: h5py.HLObject) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        expected = item.attrs.get(checksum.ATTRIBUTE)
        try:
            actual = checksum.of_dataset(item)
        except (OSError, ValueError) as error:
            problems.append(f"{file}: {name} cannot be read: {error}.")
            return
        if expected is None:
            problems.append(f"{file}: {name} has no checksum; the file is not finished, or was changed afterwards.")
        elif actual != expected:
            problems.append(f"{file}: {name} is not what was written (checksum {actual}, expected {expected}).")

    with _opened(pathlib.Path(file)) as root:
        root.visititems(one)
    return problems


def copy_to(scan: str, target: Where, processed: Where = ".") -> pathlib.Path:
    """Copy the finished results of a scan, with maps and previews, into a new folder below `target`."""
    source, folder = layout.scan_folder(pathlib.Path(processed), scan), pathlib.Path(target) / scan
    open(scan, processed)  # says what is wrong when there is nothing
    hidden_or_live = shutil.ignore_patterns(".*", "*.live.h5")
    try:
        shutil.copytree(source, folder, ignore=hidden_or_live)
    except FileExistsError as error:
        raise BadInput(f"{folder} exists already: choose another target, or delete it first.") from error
    except (OSError, shutil.Error) as error:
        raise BadInput(f"cannot copy {source} to {folder}: {error}") from error
    return folder


def export(dataset: Dataset, path: Where) -> pathlib.Path:
    """Write one dataset as .npy, .csv or .tif, by the ending of `path`; row 0 of a map comes first."""
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npy":
            np.save(path, dataset.values)
        elif path.suffix == ".csv":
            _csv(dataset, path)
        elif path.suffix in (".tif", ".tiff"):
            import tifffile

            tifffile.imwrite(path, np.asarray(dataset.values, dtype=np.float32))
        else:
            raise BadInput(f"cannot write {path}: choose an ending of .npy, .csv or .tif.")
    except ImportError as error:
        raise BadInput("TIFF files need tifffile: pip install 'beamtide[maps]'") from error
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}.") from error
    return path


def _csv(dataset: Dataset, path: pathlib.Path) -> None:
    if dataset.values.ndim > 2:
        raise BadInput(f"{dataset.name} has {dataset.values.ndim} dimensions, too many for a table: choose .npy.")
    columns, title = dataset.values, f"{dataset.name} ({dataset.units})"
    if dataset.values.ndim == 1 and dataset.axes:
        axis = dataset.axes[0]
        columns = np.column_stack([dataset.coords[axis], dataset.values])
        title = f"{axis} ({dataset.coord_units[axis]}),{title}"
    np.savetxt(path, columns, delimiter=",", header=title, fmt="%.10g")


def _files(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    return [path for path in folder.glob(pattern) if not path.name.startswith(".")]


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[h5py.File]:
    """Open a finished or a live file; BadInput says what is wrong with it."""
    try:
        file = h5py.File(path, "r", swmr=path.name.endswith(".live.h5"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}. A live file ends when its scan does: open the scan again.") from error
    with file:
        yield file


def _names_in(path: pathlib.Path) -> list[str]:
    names: list[str] = []
    with _opened(path) as root:
        if (data := root.get("entry/data")) is None:  # a file of another writer, such as ptypy's positions
            return []
        data.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(names)


def _plain(name: str, stored: h5py.Dataset) -> Dataset:
    values = stored[()] if h5py.check_string_dtype(stored.dtype) is None else np.array(stored.asstr()[()])
    return Dataset(name, values, str(stored.attrs.get("units", "1")))


def _drawn(name: str, group: h5py.Group) -> Dataset:
    signal, axes = group[str(group.attrs["signal"])], tuple(str(axis) for axis in np.atleast_1d(group.attrs["axes"]))
    coords = {axis: group[axis][()] for axis in axes}
    units = {axis: str(group[axis].attrs.get("units", "1")) for axis in axes}
    return Dataset(name, signal[()], str(signal.attrs.get("units", "1")), axes, coords, units)
