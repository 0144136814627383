"""Keeps HDF5 files inside their root: no link of a file may lead outside it.

Theory: a file can make plain h5py return the content of any file that its reader may read, by external storage, by an external
link, or by a virtual dataset. All three are visible before anything is read, so all links of the file are checked first: external
storage is refused; external links and virtual sources must lie below the root, with links of the file system followed, because
detectors use them (master files). HDF5 searches a relative name beside the file and then in the working folder, so both are
checked. A user who can replace files below the root between check and reading can still get around the check.
Source: HDF5 User Guide (external storage, external links, virtual datasets).

Invariants: each file is checked once, even if links form a circle; at most `MAX_OBJECTS` links and `MAX_FILES` files.
"""

import os
import pathlib
from collections.abc import Mapping

import h5py
from h5py import h5d, h5g, h5l, h5o

from beamtide.errors import BadInput
from beamtide.formats.base import FileFormat, OpensMore
from beamtide.formats.opening import why_not

MAX_OBJECTS = 100_000
MAX_FILES = 10_000


VARIABLES = ("HDF5_PLUGIN_PATH", "HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX")


def before_reading(known: FileFormat, path: pathlib.Path, options: Mapping[str, str], root: pathlib.Path) -> None:
    """Check all files that a format opens for this one; BadInput if one of them lies, or leads, outside `root`."""
    more = known.beside(path, options) if isinstance(known, OpensMore) else ()
    for file in (path, *more):
        if not file.resolve().is_relative_to(root.resolve()):
            raise BadInput(f"{file} leads outside {root}; a task may only read below it")
        before_opening(file, root)


def before_opening(path: pathlib.Path, root: pathlib.Path) -> None:
    """Check a user's file before h5py opens it; BadInput if it leads outside `root`. Files of other kinds have no links."""
    if h5py.is_hdf5(path):
        forget_environment()
        check(path, root)


def forget_environment() -> None:
    """Remove HDF5's environment variables that add folders for plug-ins (code!), external links, virtual sources and storage.

    Filters of `hdf5plugin` register themselves, and need no folder.
    """
    for name in VARIABLES:
        os.environ.pop(name, None)
    while h5py.h5pl.size():
        h5py.h5pl.remove(0)


def check(path: pathlib.Path, root: pathlib.Path) -> None:
    """Raise BadInput if a file, or a file it links to, leads outside `root`; Unfinished if one cannot be opened (yet)."""
    root, seen, waiting, objects = root.resolve(), set[pathlib.Path](), [path.resolve()], 0
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        try:
            with h5py.File(file, "r") as opened:
                targets, count = leads(opened, MAX_OBJECTS - objects)
        except (OSError, RuntimeError, KeyError, ValueError) as error:  # what h5py raises for errors of HDF5
            raise why_not(file, error) from error
        objects += count
        waiting += [place for what, name in targets for place in _places(file, name, root, what)]
        if objects >= MAX_OBJECTS or len(seen) > MAX_FILES:
            raise BadInput(f"{path} holds or leads to more than {MAX_OBJECTS} objects or {MAX_FILES} files; split it")


def leads(file: h5py.File, limit: int) -> tuple[list[tuple[str, str]], int]:
    """Return (what, file name) of every link from one file to another, and how many links it has.

    Uses h5py's low-level API, which makes no Python object for every group and dataset: each worker does this for each file.
    """
    found: list[tuple[str, str]] = []
    datasets: list[bytes] = []
    root, count = h5g.open(file.id, b"/"), 0

    def see_link(name: bytes, info: h5l.LinkInfo) -> bool | None:
        nonlocal count
        count += 1
        if info.type == h5l.TYPE_EXTERNAL:
            found.append((f"the external link /{name.decode(errors='replace')}", os.fsdecode(root.links.get_val(name)[0])))
        return True if count >= limit else None

    def see_object(name: bytes, info: h5o.ObjInfo) -> None:
        if info.type == h5o.TYPE_DATASET:
            datasets.append(name)

    root.links.visit(see_link, info=True)
    if count < limit:
        h5o.visit(root, see_object, info=True)
    for name in datasets:
        found += _sources(h5d.open(root, name), file.filename)
    return found, count


def _sources(dataset: h5d.DatasetID, file: str) -> list[tuple[str, str]]:
    kept = dataset.get_create_plist()
    if kept.get_external_count():
        name = h5py.Dataset(dataset).name
        raise BadInput(f"{file}: {name} lies in external storage, which may be any file; copy it inside")
    if kept.get_layout() != h5d.VIRTUAL:
        return []
    whole = h5py.Dataset(dataset)
    names = {source.file_name for source in whole.virtual_sources()} - {"."}
    return [(f"the virtual dataset {whole.name}", name) for name in sorted(names)]


def _places(file: pathlib.Path, name: str, root: pathlib.Path, what: str) -> list[pathlib.Path]:
    """Return the existing files that a name may mean; BadInput if one of them lies outside the root."""
    found: list[pathlib.Path] = []
    for candidate in (file.parent / name, file.parent / pathlib.Path(name).name, pathlib.Path.cwd() / name):
        named = sorted(candidate.parent.glob(candidate.name.replace("%b", "*"))) if "%b" in candidate.name else [candidate]
        for place in (one.resolve() for one in named):
            if place.exists() and not place.is_relative_to(root):
                raise BadInput(f"{file}: {what} leads to {name}, outside {root}; a task may only read below it")
            found += [place] if place.exists() else []
    return found
