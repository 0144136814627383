"""Calibration files of a pipeline, and the files that these name: all that a worker needs, and nothing outside the shared root.

A poni file may name a detector file, or a spline. Such a file travels under a key of its own, `poni+det.h5`, so it is part of the
settings' digest like any other: when it changes, so do the settings. Which files a calibration file names, its modality says
(`Modality.files`). They are looked for beside the file that names them, then in the shared root.
"""

import pathlib
import re
from collections.abc import Mapping

from beamtide import registry
from beamtide.errors import BadInput


def key_of(role: str, name: str) -> str:
    """Return the key under which a file travels that a calibration file names."""
    return f"{role}+{re.sub(r'[^A-Za-z0-9_.+-]', '_', pathlib.PurePath(name).name)}"


def within(path: pathlib.Path, root: pathlib.Path, where: str) -> pathlib.Path:
    """Return the full path of a file; BadInput if it leaves the root."""
    full = path.resolve()
    if not full.is_relative_to(root.resolve()):
        raise BadInput(f"{where}: {path} leaves {root}; put the file there, or set roots.shared")
    return full


def with_named(modality: str, files: Mapping[str, pathlib.Path], root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return calibration files, role -> path, with those that they name; BadInput for one that is not there, or outside."""
    found = dict(files)
    for role, path in files.items():
        for name in _names(modality, role, path):
            found[key_of(role, name)] = _place(name, path, root, role)
    return found


def _names(modality: str, role: str, path: pathlib.Path) -> tuple[str, ...]:
    try:
        known = registry.find("modalities", modality)
    except BadInput:  # another one says so
        return ()
    return tuple(known.named(role, path))


def _place(name: str, path: pathlib.Path, root: pathlib.Path, role: str) -> pathlib.Path:
    where = f"calibration.{role}: {path.name} names the file {name}"
    for candidate in (path.parent / name, root / name):
        full = within(candidate, root, where)
        if full.is_file():
            return full
    raise BadInput(f"{where}, which is neither beside it nor in {root}; copy it there")
