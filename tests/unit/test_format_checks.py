"""`testing.check_format`: our own formats pass it, and each mistake of an author is seen by it."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
import pytest

from beamtide import registry, testing
from beamtide.errors import BadInput
from beamtide.formats.base import Extent, Unfinished
from tests.ptycho_scans import simulate
from tests.unit import (
    test_fabio_format,
    test_formats,
    test_lambda_format,
    test_maps_format,
    test_panda_format,
    test_ptycho_formats,
)

Write = Callable[[pathlib.Path], tuple[pathlib.Path, int, dict[str, str]]]


def plain(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    path = folder / "plain.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = np.arange(60).reshape(10, 2, 3)
        file["entry/clock"] = np.arange(10.0)
    return path, 10, {"spectra": "/entry/data", "clock": "entry/clock"}


def triggered(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    path = folder / "triggered.h5"
    with h5py.File(path, "w") as file:
        file["counts"], file["trigger"] = np.arange(6), [1, 2, 5, 6, 7, 9]
    return path, 9, {"counts": "counts", "trigger": "trigger", "first_trigger": "1"}


def chunked(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    path = folder / "chunked.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=np.arange(42).reshape(7, 2, 3), chunks=(1, 2, 3), compression="gzip")
    return path, 7, {"frames": "/entry/data/data"}


def counters(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    path = folder / "scan_00042_00000.nxs"
    with h5py.File(path, "w") as file:
        file["entry/data/value1"], file["entry/data/exposuretime"] = np.arange(4.0), np.full(4, 0.01)
    return path, 4, {}


def capture(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    rows = [[number + 1.0, 2.5 * number, 100.0] for number in range(6)]
    return test_panda_format.saved(folder, test_panda_format.text(rows, end="END 6 Ok\n")), 6, {}


def modules(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    return test_lambda_format.write(folder, {"m1": 5, "m2": 5, "m3": 5}), 5, dict(test_lambda_format.MODULES)


def xspress3(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    return test_formats.p06_file(folder, (8, 8)), 3, {}


def cxi(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    truth = simulate(side=3, size=16)
    return test_ptycho_formats.cxi(folder / "x.cxi", truth), len(truth.frames), {}


def ptyd(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    truth = simulate(side=3, size=16)
    return test_ptycho_formats.ptyd(folder / "x.ptyd", truth), len(truth.frames), {}


def images(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    stack = np.arange(60, dtype=np.int32).reshape(5, 3, 4) - 2
    return test_fabio_format.saved(folder, test_fabio_format.edf(stack), "x.edf"), 5, {}


def pages(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    stack = np.arange(60, dtype=np.uint16).reshape(5, 3, 4)
    return test_fabio_format.saved(folder, test_fabio_format.tiff(stack), "x.tif"), 5, {}


def one_image(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    stack = np.arange(20, dtype=np.int32).reshape(1, 4, 5) - 2
    return test_fabio_format.saved(folder, test_fabio_format.cbf(stack), "x.cbf"), 1, {}


def xrf_map(folder: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, str]]:
    return test_maps_format.written(folder / "x.h5", (5, 3, 4)), 12, dict(test_maps_format.EVERYTHING)


OURS: list[tuple[str, Write]] = [
    ("hdf5", plain),
    ("hdf5", triggered),
    ("eiger", chunked),
    ("p06_counters", counters),
    ("p06_xspress3", xspress3),
    ("panda", capture),
    ("lambda", modules),
    ("cxi", cxi),
    ("ptyd", ptyd),
    ("fabio", images),
    ("fabio", pages),
    ("fabio", one_image),
    ("maps", xrf_map),
]


@pytest.mark.parametrize(("name", "write"), OURS, ids=[f"{name} {write.__name__}" for name, write in OURS])
def test_our_own_formats_keep_what_the_engine_relies_on(name: str, write: Write, tmp_path: pathlib.Path) -> None:
    path, frames, options = write(tmp_path)
    testing.check_format(registry.find("formats", name), path, frames, options)


class Lines:
    """A good format: a row of numbers per line, and a last line that says that there are no more."""

    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        try:
            text = path.read_text()
        except FileNotFoundError as error:
            raise Unfinished(f"{path} is not there yet") from error
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{path} cannot be read: {error}") from error
        if not text.endswith("end\n"):
            raise Unfinished(f"{path} has no end yet")
        try:
            return np.array([line.split(",") for line in text.splitlines()[:-1]], float)
        except ValueError as error:
            raise BadInput(f"{path} does not hold numbers: {error}") from error

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        if set(options) - {"unit"} or options.get("unit", "mm") != "mm":
            raise BadInput(f"{path}: options {dict(options)} are not known")
        return Extent(len(self.rows(path)))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
        found = self.rows(path)
        if last > len(found):
            raise BadInput(f"{path} holds {len(found)} frames, and {last} are wanted")
        return {"rows": found[first:last]}

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        return None


class CountsOneMore(Lines):
    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        return Extent(super().probe(path, options).frames + 1)


class ReadsFromTheBeginning(Lines):
    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
        return {"rows": super().read(path, 0, last, options)["rows"][: last - first]}


class GivesFewerRows(Lines):
    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
        return {"rows": self.rows(path)[first:last]}


class Remembers(Lines):
    def __init__(self) -> None:
        self.kept: dict[pathlib.Path, np.ndarray[Any, Any]] = {}

    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        if path not in self.kept:
            self.kept[path] = super().rows(path)
        return self.kept[path]


class NeedsNoEnd(Lines):
    """The last line may be half of a number: 12 instead of 123."""

    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        if not path.exists() or not path.stat().st_size:
            raise Unfinished(f"{path} is not there yet")
        lines = [line.split(",") for line in path.read_text(errors="replace").splitlines() if line != "end"]
        try:
            return np.array([line for line in lines if len(line) == 2], float).reshape(-1, 2)
        except ValueError as error:
            raise BadInput(f"{path} does not hold numbers") from error


class SaysValueError(Lines):
    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        try:
            return super().rows(path)
        except Unfinished:
            raise
        except BadInput as error:
            raise ValueError("no numbers") from error


class ForgetsUnfinished(Lines):
    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        try:
            return super().rows(path)
        except Unfinished as error:
            raise BadInput(str(error)) from error


class TakesAnyOption(Lines):
    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        return super().probe(path, {})


class KeepsOpen(Lines):
    def __init__(self) -> None:
        self.held: list[int] = []

    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        found = super().rows(path)
        self.held.append(os.open(path, os.O_RDONLY))
        return found


class WritesAnIndex(Lines):
    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        found = super().rows(path)
        path.with_suffix(".index").write_text(str(len(found)))
        return found


class LooksBeside(Lines):
    def rows(self, path: pathlib.Path) -> np.ndarray[Any, Any]:
        path.with_name("other.txt").read_text()
        return super().rows(path)


class HoldsText(Lines):
    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
        return {"rows": super().read(path, first, last, options)["rows"].astype(str)}


class OddShape(Lines):
    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        return (0, len(path.read_text()))


MISTAKES: list[tuple[type[Lines], str]] = [
    (CountsOneMore, "the file holds 8 frames"),
    (ReadsFromTheBeginning, "is not that part of the whole"),
    (GivesFewerRows, "read of frames 0 to 9 of 8: raise BadInput"),
    (Remembers, "what a caller wrote into its arrays|cut to 1% after it was counted"),
    (NeedsNoEnd, "are read otherwise than from the whole file"),
    (SaysValueError, "raise BadInput or Unfinished, not ValueError: no numbers"),
    (ForgetsUnfinished, "a file that is not there: raise Unfinished, not BadInput"),
    (TakesAnyOption, "options {'unit': 'inch'} must be refused, and probe says Extent"),
    (KeepsOpen, "is still open after the call"),
    (WritesAnIndex, "a format must not write"),
    (LooksBeside, "other.txt was opened, and `beside` does not name it"),
    (HoldsText, "'rows' holds <U"),
    (OddShape, "shape_of"),
]


@pytest.fixture
def sample(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "scan.txt"
    path.write_text("".join(f"{number * 111},{number * 37}\n" for number in range(1, 9)) + "end\n")
    path.with_name("other.txt").write_text("x")
    return path


def test_a_good_format_passes(sample: pathlib.Path) -> None:
    testing.check_format(Lines(), sample, frames=8, options={"unit": "mm"}, wrong=[{"unit": "inch"}, {"units": "mm"}])


@pytest.mark.parametrize(("kind", "said"), MISTAKES, ids=[kind.__name__ for kind, _ in MISTAKES])
def test_every_mistake_is_seen(sample: pathlib.Path, kind: type[Lines], said: str) -> None:
    known = kind()
    with pytest.raises(AssertionError, match=said):
        testing.check_format(known, sample, frames=8, options={}, wrong=[{"unit": "inch"}])
    for number in getattr(known, "held", ()):
        os.close(number)
