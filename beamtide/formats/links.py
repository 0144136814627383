"""Finding a dataset in an HDF5 file; where it is not, the true reason: a wrong path, or a link that leads nowhere (yet).

Detectors link their data files into a master file before these are there. h5py says of such a link what it says of a path that
does not exist, so the links on the way are looked at.
"""

import pathlib

import h5py

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished
from beamtide.formats.natural import natural
from beamtide.formats.recognise import hint_of
from beamtide.formats.unwritten import place

MOST = 12
"""So many of the names that are there are told."""


def find(file: h5py.File, where: str) -> h5py.Dataset:
    """Return the dataset at a path; Unfinished for a link whose file is not there (yet), BadInput for a path that is wrong."""
    found = file.get(where)
    if isinstance(found, h5py.Dataset):
        return found
    parent = file
    for part in where.strip("/").split("/"):
        below = parent.get(part)
        if below is None and part in parent.keys():
            raise _nowhere(parent, part, where)
        if not isinstance(below, h5py.Group):
            break
        parent = below
    there = ", ".join(sorted(parent.keys(), key=natural)[:MOST]) or "nothing"
    raise BadInput(
        f"{file.filename}: there is no dataset {where}; {parent.name} holds {there}; correct source.options{hint_of(file)}"
    )


def _nowhere(parent: h5py.Group, part: str, where: str) -> BadInput:
    """Return why a link in a group leads nowhere."""
    link, name = parent.get(part, getlink=True), parent.file.filename
    if isinstance(link, h5py.SoftLink):
        return BadInput(
            f"{name}: {where} is a link to {link.path}, which is not in the file; correct source.options, or the file"
        )
    if not isinstance(link, h5py.ExternalLink):
        return Unfinished(f"{name}: {where} cannot be opened; it is damaged")
    target = place(pathlib.Path(name), link.filename)
    if target is None:
        return Unfinished(f"{name}: {where} is a link to the file {link.filename}, which is not there (yet)")
    return Unfinished(f"{name}: {where} is a link to {link.path} in {target}, which has none there (yet)")
