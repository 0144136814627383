"""What is relied on in a writer: `check_writer` tries all of it on small products.

Theory: the service keeps the promise "as a whole or not at all" for a writer that stays with the paths that it is given. So it is
tried whether it does (nothing appears elsewhere, the result file stays as it was), whether it can be stopped at any call, and
whether what it made can be read again as what it was: holes, units, names, a second version in place of the first.
"""

import hashlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beamline_side.testing.samples import HEADERS, WriterSample
from beamline_side.writers.files import Outcome, ProductFiles
from beamline_side.writers.written import ENDING, listed
from beamtide.messages.results import DatasetHeader
from beamtide.results import layout
from beamtide.writers import FinishedProduct, FormatWriter, Outputs

Read = Callable[[pathlib.Path], Mapping[str, Any]]
NAME = "checked"
MAP = WriterSample("a map", "scan_00001", (4, 6), snake=True, holes=(2,))
SAMPLES = (
    MAP,
    WriterSample("a map of two scans", "scan_1+scan_2", (2, 3)),
    WriterSample("a line scan", "line-scan.7", (7,)),
    WriterSample("a map of one point", "point", (1, 1)),
    WriterSample("a map without any result", "nothing", (2, 3), holes=(0, 1)),
)
CALLS = 12
"""It is stopped at each of so many calls, and behind the last."""


def check_writer(writer: FormatWriter, folder: pathlib.Path | str, *, read: Read | None = None) -> None:
    """Try a writer on small products below `folder`; AssertionError says what is otherwise than it should be.

    `read` takes what the writer made of one product, one file or folder, and returns dataset -> values, or (values, units);
    "area/Fe_K" and "sample/area/Fe_K" are the same. Datasets that the format leaves out need not be there.
    """
    bench = _Suite(writer, pathlib.Path(folder).resolve() / "writer", read)
    for sample in SAMPLES:
        bench.is_written(sample)
    bench.corrected(MAP, replace(MAP, holes=(), corrections=1, offset=100.0))
    bench.stopped(WriterSample("a map when it is stopped", "stopped", (2, 3)))


@dataclass(slots=True)
class _Suite:
    writer: FormatWriter
    folder: pathlib.Path
    read: Read | None

    def is_written(self, sample: WriterSample) -> None:
        """Write a sample, and look at what is there then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        outcome = self._write(sample, self.writer)
        empty = sample.rows()["area/Fe_K"].size and np.isnan(sample.rows()["area/Fe_K"]).all()
        if empty and outcome.refused:  # there is nothing to write, and it says so
            return
        for why in (*outcome.refused.values(), *map(repr, outcome.failed.values())):
            raise AssertionError(f"{sample.name}: the writer raised: {why}")
        made = self._made(sample)
        assert made or sample is not MAP, f"{sample.name}: the writer asked for no path, so it made nothing"
        self._nothing_else(sample)
        if self.read is not None and made:
            assert len(made) == 1, f"{sample.name}: it makes {len(made)} files or folders, and `read` takes one: leave it out"
            self._reads(sample, self.read(made[0]))

    def corrected(self, first: WriterSample, second: WriterSample) -> None:
        """Write a sample, and then the same with corrections: it stands in its place."""
        self.is_written(first)
        before = _tree(self.folder)
        outcome = self._write(second, self.writer)
        assert not outcome.refused, f"corrected results: the writer raised: {outcome.refused[NAME]}"
        assert not outcome.failed, f"corrected results: the writer raised: {outcome.failed[NAME]!r}"
        assert _visible(before) != _visible(_tree(self.folder)), "corrected results: what was written before is still there"
        self._nothing_else(second)
        if self.read is not None:
            self._reads(replace(second, name="corrected results"), self.read(self._made(second)[0]))

    def stopped(self, sample: WriterSample) -> None:
        """Stop the writer at every call to us and behind the last: nothing is seen of it, and what was there stays."""
        self.is_written(sample)
        whole = _visible(_tree(self.folder))
        for call in range(1, CALLS + 1):
            stopped = _StoppedWriter(self.writer, call)
            self._leaves(replace(sample, offset=float(call), corrections=call), stopped, whole)
            if stopped.returned:
                break
        self._leaves(replace(sample, offset=-1.0, corrections=CALLS + 1), _StoppedWriter(self.writer, sys.maxsize), whole)
        shutil.rmtree(self.folder)
        for call in (1, 2, sys.maxsize):
            self._leaves(sample, _StoppedWriter(self.writer, call), {})

    def _leaves(self, sample: WriterSample, stopped: "_StoppedWriter", before: Mapping[str, bytes]) -> None:
        """Look that a writer that is stopped changes nothing."""
        outcome = self._write(sample, stopped)
        assert outcome.failed or outcome.refused, f"{sample.name}: an error of the disk (OSError) was not passed on"
        after = _visible(_tree(self.folder))
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        assert not names, f"{sample.name}: it was stopped, and {names[0]} is there, gone or changed all the same"

    def _write(self, sample: WriterSample, writer: FormatWriter) -> Outcome:
        """Write it as the writer service does."""
        changed: list[str] = []

        def watched(product: FinishedProduct, out: Outputs) -> None:
            before = hashlib.sha256(product.file.read_bytes()).digest()
            try:
                writer(product, out)
            finally:
                if not product.file.exists() or hashlib.sha256(product.file.read_bytes()).digest() != before:
                    changed.append(f"{sample.name}: the writer changed the result file that it was given")

        files = ProductFiles(self.folder, sample.product, sample.state, (NAME,))
        try:
            outcome = files.write(sample.content(), lambda _: watched)
        finally:
            files.drop()
            assert not changed, changed[0]
        for error in outcome.failed.values():
            if isinstance(error, AssertionError):
                raise error
        return outcome

    def _made(self, sample: WriterSample) -> tuple[pathlib.Path, ...]:
        return listed(layout.scan_folder(self.folder, sample.scan))

    def _nothing_else(self, sample: WriterSample) -> None:
        """Look that there is nothing but what the writer asked for."""
        made, place = self._made(sample), layout.scan_folder(self.folder, sample.scan)
        for path in (self.folder / name for name in _tree(self.folder)):
            if path.is_dir() or any(path == one or path.is_relative_to(one) for one in made):
                continue
            ours = path.parent == place and path.name.startswith(".") and path.name.endswith(ENDING)
            assert ours, f"{sample.name}: {path.relative_to(self.folder)} is there, and is no path that the writer was given"

    def _reads(self, sample: WriterSample, found: Mapping[str, Any]) -> None:
        """Compare what `read` returns with what it should."""
        rows, maps, known = sample.rows(), sample.maps(), {header.name: header for header in HEADERS}
        numbers = {name.removeprefix("sample/"): one for name, one in found.items()}
        assert numbers or np.isnan(rows["area/Fe_K"]).all(), f"{sample.name}: nothing is read again"
        for name, one in numbers.items():
            assert name in known, f"{sample.name}: {name!r} is read, and there was no such dataset, only {', '.join(known)}"
            values, units = one if isinstance(one, tuple) else (one, known[name].units)
            _same_units(sample, known[name], units)
            if known[name].per == "index":
                values = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
                fits = any(_equal(values, wanted[name]) for wanted in (rows, maps) if name in wanted)
                holes = f"; indexes of the lines {sample.holes} have no result" if sample.holes else ""
                assert fits, f"{sample.name}: {name!r} is read as other values than it had, by index or as a map{holes}"


class _StoppedWriter:
    """A writer that the disk stops at its n-th call to us: for a path, for a dataset, or when it is done."""

    def __init__(self, writer: FormatWriter, call: int) -> None:
        self._writer, self._left, self.returned = writer, call, False

    def __call__(self, product: FinishedProduct, out: Outputs) -> None:
        """Let the writer work until then."""
        self._out = out
        self._writer(_told(product, self._count), self)
        self.returned = True
        if self._left <= 0:  # it was told, and went on as if nothing had happened
            return
        raise OSError(28, os.strerror(28))

    def path(self, suffix: str, folder: str = "") -> pathlib.Path:
        """Count, and pass on."""
        self._count()
        return self._out.path(suffix, folder)

    def _count(self) -> None:
        self._left -= 1
        if self._left <= 0:
            raise OSError(28, os.strerror(28))


def _told(product: FinishedProduct, count: Callable[[], None]) -> FinishedProduct:
    """Return the product, which calls `count` whenever a dataset is read."""

    class Counted(type(product.results)):  # type: ignore[misc]
        def __getitem__(self, name: str) -> Any:
            count()
            return super().__getitem__(name)

        def rows(self, name: str) -> Any:
            count()
            return super().rows(name)

    class Told(FinishedProduct):
        __slots__ = ()

        @property
        def results(self) -> Any:
            return Counted(self.product.scan, {self.product.pipeline: self.file})

    return Told(**{name: getattr(product, name) for name in FinishedProduct.__dataclass_fields__})


def _same_units(sample: WriterSample, header: DatasetHeader, units: Any) -> None:
    said = f"{sample.name}: {header.name!r} is in {header.units!r}, and {units!r} is read; None says that a format has no units"
    assert units is None or str(units) == header.units, said


def _equal(values: Any, wanted: Any) -> bool:
    wanted = np.asarray(wanted, float)
    return values.shape == wanted.shape and bool(np.allclose(values, wanted, rtol=1e-6, equal_nan=True))


def _tree(folder: pathlib.Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, and every folder."""
    found = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"/" for path in found}


def _visible(tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """Leave out what nobody looks at: hidden names, and folders, which may stay empty."""
    return {name: body for name, body in tree.items() if body != b"/" and not any(map(_hidden, name.split("/")))}


def _hidden(name: str) -> bool:
    return name.startswith((".part-", ".draft-")) or name.endswith(ENDING)
