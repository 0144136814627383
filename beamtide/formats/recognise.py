"""What a file looks like that a format did not understand, by its first bytes and a few groups: for the sentence that says so.

A guess, and nothing but words: no format reads a file because of what is said here. Bytes that may be the beginning of anything
(none, or zeros: space that is not written yet) look like nothing.
"""

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
from h5py import h5g, h5o

HDF5 = b"\x89HDF\r\n\x1a\n"
BEGINNING = 4096
"""So many bytes are looked at."""
MOST_NAMES, MOST_SEEN = 6, 2000
"""So many datasets are told, of so many objects that are looked at."""
ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises for files and types that it cannot read."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a file looks like."""

    what: str
    advice: str = ""
    """What to do about it."""

    def __str__(self) -> str:
        return f"this looks like {self.what}" + (f": {self.advice}" if self.advice else "")


def _use(name: str) -> str:
    return f"use format: {name}"


STARTS: tuple[tuple[re.Pattern[bytes], Likeness], ...] = tuple(
    (re.compile(pattern, re.DOTALL), look)
    for pattern, look in (
        (rb"\x89HDF\r\n\x1a\n", Likeness("an HDF5 file", _use("hdf5"))),
        (rb"###CBF", Likeness("a CBF image", _use("fabio"))),
        (rb"(II\*\0|MM\0\*).{1020}.{4}MMX", Likeness("a MarCCD image", _use("fabio"))),
        (rb"II\*\0|MM\0\*", Likeness("a TIFF image", _use("fabio"))),
        (rb"II\+\0|MM\0\+", Likeness("a BigTIFF image", "save it as TIFF, or as HDF5")),
        (rb'\s*\{\s*[^"}]{0,2000}?(EDF_\w+|HeaderID|ByteOrder|Dim_1)\s*=', Likeness("an EDF image", _use("fabio"))),
        (rb"(OK\r?\n)?\s*(arm_time|missed):", Likeness("a capture of a PandABox", _use("panda"))),
        (rb"OK\n<", Likeness("a framed capture of a PandABox", _use("panda"))),
        (rb"#[FS] \S", Likeness("a SPEC file", "save its columns as HDF5")),
        (rb"\x93NUMPY", Likeness("a NumPy array (.npy)", "save it as HDF5")),
        (rb"PK\x03\x04", Likeness("a zip archive (.zip, .npz)", "unpack it")),
        (rb"\x1f\x8b", Likeness("a file compressed with gzip", "unpack it")),
        (rb"BZh\d", Likeness("a file compressed with bzip2", "unpack it")),
        (rb"\xfd7zXZ\0|\x28\xb5\x2f\xfd", Likeness("a compressed file (xz, zstd)", "unpack it")),
        (rb"version https://git-lfs", Likeness("a Git LFS pointer and not the file itself", "git lfs pull")),
        (
            rb"(?i)\s*(<!doctype html|<html)",
            Likeness("an HTML page, such as an error in place of a download", "get the file again"),
        ),
        (rb"<\?xml", Likeness("an XML file")),
        (rb"MATLAB", Likeness("a MATLAB file", "save it as version 7.3, which is HDF5")),
    )
)
NUMBERS = re.compile(rb"([-+.\deE]+[ \t,;]+){1,}[-+.\deE]+\s*")
GROUPS: tuple[tuple[tuple[str, ...], Likeness], ...] = (
    (("MAPS/Spectra/mca_arr", "MAPS/mca_arr"), Likeness("a MAPS file (XRF-Maps), channels first", _use("maps"))),
    (("MAPS",), Likeness("a MAPS file (XRF-Maps) without spectra")),
    (
        ("entry/instrument/detector/detectorSpecific", "entry/data/data_000001"),
        Likeness("the master file of an Eiger", _use("eiger")),
    ),
    (("entry/instrument/detector/collection/shutter_time",), Likeness("a file of a Lambda detector", _use("lambda"))),
    (("entry/measurement/panda0",), Likeness("the positions file of NanoMAX", _use("nanomax_panda"))),
    (("entry/instrument/xspress3/channel00",), Likeness("a file of an Xspress3 at P06", _use("p06_xspress3"))),
    (("entry/instrument/xspress3/data",), Likeness("a file of an Xspress3 at NanoMAX", _use("nanomax_xspress3"))),
    (("entry/data/encoder_1",), Likeness("a file of a PiLC at P06", _use("p06_pilc"))),
    (("cxi_version", "entry_1/data_1"), Likeness("a CXI file", _use("cxi"))),
    (("chunks/0/data", "info/psize"), Likeness("a .ptyd file of ptypy", _use("ptyd"))),
    (("exchange/data",), Likeness("a Data Exchange file of APS", "use format: hdf5, and name /exchange/data")),
)


def hint(path: pathlib.Path) -> str:
    """Return "; this looks like …" for the end of a sentence; "" if it looks like nothing that is known."""
    found = look(path)
    return f"; {found}" if found else ""


def hint_of(file: h5py.File, axes: int = 1) -> str:
    """Return the same for an open HDF5 file, or else which datasets of about so many axes it has."""
    try:
        found = _hdf5(file)
        there = [] if found else datasets(file, axes)
    except ERRORS:
        return ""
    if found is not None:
        return f"; {found}"
    return f"; datasets in it are {', '.join(there)}" if there else ""


def look(path: pathlib.Path) -> Likeness | None:
    """Return what a file looks like; None if it cannot be read, is empty, or like nothing that is known."""
    try:
        with path.open("rb") as file:
            begins = file.read(BEGINNING)
        if begins.startswith(HDF5):
            with h5py.File(path, "r") as opened:
                return _hdf5(opened) or of_bytes(begins)
    except ERRORS:
        return None
    return of_bytes(begins)


def of_bytes(begins: bytes) -> Likeness | None:
    """Return what a file looks like that begins with these bytes."""
    if not begins.strip(b"\0"):
        return None
    known = next((found for pattern, found in STARTS if pattern.match(begins)), None)
    if known is not None:
        return known
    lines = [line for line in begins.splitlines()[:-1] or begins.splitlines() if line.strip() and not line.startswith(b"#")]
    if lines and all(NUMBERS.fullmatch(line) for line in lines[1:] or lines):
        return Likeness("text in columns", "save it as HDF5")
    text = begins.replace(b"\t", b" ").replace(b"\r", b"").replace(b"\n", b"")
    return Likeness("a text file") if text and all(32 <= byte < 127 for byte in text) else None


def datasets(file: h5py.File, axes: int) -> list[str]:
    """Return the names and shapes of some datasets of a file, those with the most fitting number of axes first."""
    found = [(abs(one.ndim - axes), -one.size, f"{one.name} {'x'.join(map(str, one.shape))}") for one in _arrays(file)]
    return [text for _, _, text in sorted(found)[:MOST_NAMES]]


def _hdf5(file: h5py.File) -> Likeness | None:
    for places, found in GROUPS:
        if any(_has(file, place) for place in places):
            return found
    data = file.get("entry/data/data") if _has(file, "entry/data/data") else None
    if isinstance(data, h5py.Dataset) and "image_nr_low" in data.attrs:
        return Likeness("a data file of an Eiger", _use("eiger"))
    if any(re.fullmatch(r"[A-Z]+\d*\.[\w.]+\.(Value|Mean|Min|Max|Diff|Sum)", name) for name in file):
        return Likeness("an HDF5 file of a PandABox", _use("panda"))
    return None


def _has(file: h5py.File, place: str) -> bool:
    """Whether a place is in a file itself; one that lies behind a link to elsewhere need not be there yet."""
    group: h5py.Group = file
    *parents, last = place.split("/")
    for part in parents:
        below = group.get(part) if part in group.keys() else None
        if not isinstance(below, h5py.Group):
            return False
        group = below
    return last in group.keys()


def _arrays(file: h5py.File) -> Iterator[h5py.Dataset]:
    names: list[bytes] = []
    seen = 0

    def see(name: bytes, info: h5o.ObjInfo) -> bool | None:
        nonlocal seen
        seen += 1
        if info.type == h5o.TYPE_DATASET:
            names.append(name)
        return True if seen >= MOST_SEEN else None

    h5o.visit(h5g.open(file.id, b"/"), see, info=True)
    for name in names:
        found = file[name]
        if found.ndim and found.size > 1 and found.dtype.kind in "biuf":
            yield found
