"""Files of a Lambda detector (X-Spectrum): HDF5, one per module and part of the scan, told apart by `_m1_`, `_m2_` … in the name.

The files of the first module are those of the scan; those of the others lie beside them:

    source: {match: "{scan}/lambda/*_m1_part*.nxs", format: lambda, options: {m1: PATH, m2: PATH, m3: PATH}}

Options: module -> dataset path, "/entry/instrument/detector/data" as the detector writes it. Without options only the file's own
module is read, so a missing module is never ignored silently. Each module is an array of its own, named as it is.
Source: files of PETRA III, P02.2.
"""

import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamtide.errors import BadInput
from beamtide.formats import eiger, unwritten
from beamtide.formats.base import Extent, Unfinished

DATA = "/entry/instrument/detector/data"
MODULE = re.compile(r"_(m\d+)_")


@dataclass(frozen=True, slots=True)
class LambdaFormat:
    """Frames of all modules of a detector."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many frames each module has. Unfinished: a module's file is not there yet, or has fewer frames than another."""
        found = _modules(path, options)
        if missing := [file.name for file, _ in found.values() if not file.exists()]:
            raise Unfinished(f"{path}: the file of another module, {missing[0]}, is not there")
        extents = {name: eiger.FORMAT.probe(file, {name: where}) for name, (file, where) in found.items()}
        frames = {name: one.frames for name, one in extents.items()}
        least, most = (choose(frames, key=lambda name: frames[name]) for choose in (min, max))
        if frames[least] < frames[most]:
            raise Unfinished(f"{path}: module {least} has {frames[least]} frames, {most} has {frames[most]}")
        return Extent(frames[least], unwritten.union((one.missing for one in extents.values()), frames[least]))

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the frames `first <= frame < last` of each module, not yet read."""
        parts = {
            name: eiger.FORMAT.read(file, first, last, {name: where}) for name, (file, where) in _modules(path, options).items()
        }
        return {name: part[name] for name, part in parts.items()}

    def beside(self, path: pathlib.Path, options: Mapping[str, str]) -> tuple[pathlib.Path, ...]:
        """Return the files of the other modules."""
        return tuple(file for file, _ in _modules(path, options).values() if file != path)

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return nothing: these files do not know the scan."""
        return None


def _modules(path: pathlib.Path, options: Mapping[str, str]) -> dict[str, tuple[pathlib.Path, str]]:
    """Return module -> its file and dataset."""
    own = MODULE.search(path.name)
    if own is None:
        raise BadInput(f"{path}: its name has no _m1_, _m2_ …; is this a file of one module of a Lambda detector?")
    wanted = options or {own[1]: DATA}
    if wrong := [name for name in wanted if not re.fullmatch(r"m\d+", name)]:
        raise BadInput(f"source.options: {wrong[0]!r} is no module of a Lambda; they are called m1, m2, m3")
    before, after = path.name[: own.start()], path.name[own.end() :]
    return {name: (path.with_name(f"{before}_{name}_{after}"), where) for name, where in wanted.items()}


FORMAT = LambdaFormat()
