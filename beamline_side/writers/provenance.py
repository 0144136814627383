"""The provenance of results as NeXus groups: NXprocess with notes, one row per task, and the holes.

Notes are NXnote groups (type, data), which viewers show as text; a calibration file that is no text is kept as bytes.
"""

import importlib.metadata
import json
import platform
import re
from typing import Any

import h5py
import numpy as np

from beamline_side.writers import rows
from beamline_side.writers.product import Content, joined
from beamtide import clock
from beamtide.messages.results import Hole, Provenance, StoreRequest

VERSION = importlib.metadata.version("beamtide")
NOBODY = Provenance(worker="", host="", job="", attempt=0, seconds=0.0)


def write(entry: h5py.Group, content: Content, tasks: list[StoreRequest], holes: list[Hole]) -> None:
    """Write `process`, `holes` and `inputs` below the entry."""
    process = rows.group(entry, "process", "NXprocess")
    rows.field(process, "program", f"beamtide {content.modality}")
    rows.field(process, "version", VERSION)
    rows.field(process, "date", clock.iso())
    rows.field(process, "sequence_index", np.int32(1))
    _settings(process, content)
    _versions(process, tasks)
    _tasks(process, tasks)
    _inputs(entry, tasks)
    _holes(entry, holes)


def _settings(process: h5py.Group, content: Content) -> None:
    document = content.document
    if document is not None:
        body = {"modality": document.modality, "values": json.loads(document.values), "calibration": document.calibration}
        body |= {"source": json.loads(document.source)} if document.source else {}
        note = _note(process, "settings", "application/json", json.dumps(body, indent=2, sort_keys=True))
    else:
        note = _note(process, "settings", "text/plain", "The metadata server no longer had this settings document.")
    note.attrs["digest"] = content.product.settings
    for name, text in content.files.items():
        made = _note(process, "calibration_" + re.sub(r"\W", "_", name, flags=re.ASCII), "text/plain", text)
        made.attrs["digest"] = document.calibration.get(name, "") if document is not None else ""
        rows.field(made, "file_name", name)


def _note(parent: h5py.Group, name: str, kind: str, text: str | bytes) -> h5py.Group:
    note = rows.group(parent, name, "NXnote")
    value: Any = text
    if isinstance(text, bytes):
        try:
            value = text.decode()
        except UnicodeDecodeError:
            kind, value = "application/octet-stream", np.frombuffer(text, dtype=np.uint8)
    if isinstance(value, str) and "\0" in value:  # HDF5 text ends at a zero byte
        kind, value = "application/octet-stream", np.frombuffer(value.encode(), dtype=np.uint8)
    rows.field(note, "type", kind)
    rows.field(note, "data", value)
    return note


def _versions(process: h5py.Group, tasks: list[StoreRequest]) -> None:
    found = {"beamtide": {VERSION}, "python (writer)": {platform.python_version()}}
    for package in ("h5py", "numpy"):
        found[f"{package} (writer)"] = {importlib.metadata.version(package)}
    for task in tasks:
        if task.provenance is not None:
            for name, version in task.provenance.versions.items():
                found.setdefault(name, set()).add(version)
            if task.provenance.image:
                found.setdefault("container image", set()).add(task.provenance.image)
    lines = {name: ", ".join(sorted(versions)) for name, versions in found.items()}
    _note(process, "versions", "application/json", json.dumps(lines, indent=2, sort_keys=True))


def _tasks(process: h5py.Group, tasks: list[StoreRequest]) -> None:
    """One row per task, as columns of equal length."""
    table = rows.group(process, "tasks", "NXcollection")
    who = [task.provenance or NOBODY for task in tasks]
    _texts(table, "task", [task.task.id for task in tasks])
    for name, values in (("start", [task.task.start for task in tasks]), ("stop", [task.task.stop for task in tasks])):
        rows.field(table, name, np.array(values, dtype=np.int64), "1", long_name=f"acquisition index, {name}")
    _texts(table, "outcome", [task.outcome for task in tasks])
    rows.field(table, "attempt", np.array([task.attempt for task in tasks], dtype=np.int32), "1")
    rows.field(table, "seconds", np.array([one.seconds for one in who], dtype=float), "s")
    _texts(table, "worker", [one.worker for one in who])
    _texts(table, "host", [one.host for one in who])
    _texts(table, "job", [one.job for one in who])


def _inputs(entry: h5py.Group, tasks: list[StoreRequest]) -> None:
    table = rows.group(entry, "inputs", "NXcollection")
    used = [(task.task.start, source) for task in tasks for source in task.task.inputs]
    _texts(table, "path", [source.path for _, source in used])
    _texts(table, "root", [source.root for _, source in used])
    _texts(table, "format", [source.format for _, source in used])
    for name in ("first", "last"):
        frames = np.array([getattr(source, name) for _, source in used], dtype=np.int64)
        rows.field(table, name, frames, "1", long_name=f"frame in the file, {name}")
    rows.field(table, "start", np.array([start for start, _ in used], dtype=np.int64), "1", long_name="acquisition index")


def _holes(entry: h5py.Group, holes: list[Hole]) -> None:
    table, found = rows.group(entry, "holes", "NXcollection"), joined(holes)
    rows.field(table, "start", np.array([hole.start for hole in found], dtype=np.int64), "1")
    rows.field(table, "stop", np.array([hole.stop for hole in found], dtype=np.int64), "1")
    _texts(table, "reason", [hole.reason for hole in found])


def _texts(parent: h5py.Group, name: str, lines: list[str]) -> None:
    clean = [line.replace("\0", " ") for line in lines]
    parent.create_dataset(name, data=np.array(clean, dtype=object), shape=(len(clean),), dtype=h5py.string_dtype())
