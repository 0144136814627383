"""A bundle: a failed task with everything needed to rerun it on another machine, as a folder or a zip file.

    README.txt       what this is, and the command that runs it
    task.json        the task, as `beamtide submit` reads it; its inputs are named by root and path
    settings.json    modality, settings, and the digests of the calibration files
    calibration/     these files, by name
    datasets/        what it got from other pipelines: <pipeline>/<dataset>.npy
    inputs/          copies of the input files, if wanted: raw/…, processed/…
    failure.json     reason, counts, worker, host, job, time, and where the inputs lay
    traceback.txt    stderr.txt

Invariant: a copied input never leaves its root.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from beamtide import clock
from beamtide.config import settings
from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.messages.dead_letters import DeadLetter
from beamtide.messages.metadata import SettingsDocument
from beamtide.messages.tasks import InputFile

README = """A task of Beamtide that failed: {task}
{reason}

Rerun it:  beamtide rerun {name}
{inputs}You may edit settings.json and calibration/ before a rerun, to see what helps.
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into a bundle; `datasets` are named "pipeline/dataset"."""

    letter: DeadLetter
    document: SettingsDocument
    calibration: Mapping[str, bytes]
    roots: Roots
    datasets: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def write(bundle: Bundle, to: pathlib.Path, *, with_inputs: bool) -> list[str]:
    """Write a bundle, as a zip file if `to` says so; return the inputs that could not be copied because they are missing."""
    if to.exists():
        raise BadInput(f"{to} exists already; delete it first or choose another name with --to")
    copies = {f"inputs/{one.root}/{one.path}": _source(one, bundle.roots) for one in bundle.letter.task.inputs if with_inputs}
    try:
        with tempfile.TemporaryDirectory(dir=_parent(to), prefix=".bundle-") as scratch:
            folder = pathlib.Path(scratch) / "bundle"
            for name, content in _files(bundle, to.name, with_inputs).items():
                _put(folder / name, content)
            for name, source in copies.items():
                if source is not None:
                    _put(folder / name, source)
            if to.suffix == ".zip":
                folder = pathlib.Path(shutil.make_archive(scratch + "/packed", "zip", folder))
            folder.rename(to)
    except OSError as error:
        raise BadInput(f"cannot write {to}: {error.strerror}; choose another place with --to") from error
    return [name for name, source in copies.items() if source is None]


@contextlib.contextmanager
def opened(bundle: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a bundle as a folder; a zip file is unpacked into a temporary one."""
    if bundle.is_dir():
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="beamtide-") as folder:
        try:
            with zipfile.ZipFile(bundle) as packed:
                packed.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"cannot read the bundle {bundle}: {error}; make one with `beamtide dlq export`") from error
        yield pathlib.Path(folder)


def read_settings(folder: pathlib.Path) -> settings.PreparedSettings:
    """Return the settings of an opened bundle with its calibration files, as they are now: they may have been edited."""
    try:
        told = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        files = {path.name: path.read_bytes() for path in sorted((folder / "calibration").glob("*"))}
        digests = {name: settings.digest_of_bytes(content) for name, content in files.items()}
        document = SettingsDocument(modality=told["modality"], values=settings.canonical(told["settings"]), calibration=digests)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} is not a bundle, or its settings.json is damaged: {error}") from error
    return settings.PreparedSettings(document, settings.digest_of(document), files)


def read_dataset(folder: pathlib.Path, name: str) -> NDArray[Any]:
    """Return a dataset ("pipeline/dataset") that the task got from another pipeline."""
    try:
        values: NDArray[Any] = np.load(folder / "datasets" / f"{name}.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"the bundle has no dataset {name}, which the task needs: {error}") from error
    return values


def read_roots(folder: pathlib.Path, raw: pathlib.Path | None) -> Roots:
    """Return the roots of the inputs: in the bundle if it has copies, else `raw`, else where the files were."""
    try:
        told = json.loads((folder / "failure.json").read_text(encoding="utf-8"))["roots"]
        was = {name: pathlib.Path(told[name]) for name in ("raw", "processed")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder} is not a bundle, or its failure.json is damaged: {error}") from error
    own = {name: folder / "inputs" / name for name in was}
    found = {name: path if path.is_dir() else was[name] for name, path in own.items()}
    return Roots(raw=raw or found["raw"], processed=found["processed"])


def plain(value: Any) -> Any:
    """Return a message as plain values for JSON: fields by name."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return [plain(one) for one in value] if isinstance(value, tuple | list) else value


def _files(bundle: Bundle, name: str, with_inputs: bool) -> dict[str, bytes]:
    letter, document = bundle.letter, bundle.document
    where = "" if with_inputs else f"Its input files lie below {bundle.roots.raw}; elsewhere, add --raw FOLDER.\n"
    failure = {key: value for key, value in plain(letter).items() if key not in ("task", "trace", "stderr", "at")}
    failure["when"] = clock.iso(letter.at) if letter.at else ""
    failure["roots"] = {"raw": str(bundle.roots.raw), "processed": str(bundle.roots.processed)}
    told = {"modality": document.modality, "settings": json.loads(document.values), "calibration": document.calibration}
    texts = {
        "README.txt": README.format(task=letter.task.id, reason=letter.reason, name=name, inputs=where),
        "task.json": json.dumps([plain(letter.task)], indent=2),
        "settings.json": json.dumps(told, indent=2),
        "failure.json": json.dumps(failure, indent=2),
        "traceback.txt": letter.trace,
        "stderr.txt": letter.stderr,
    }
    files = {name: text.encode() for name, text in texts.items()}
    return files | {f"calibration/{name}": content for name, content in bundle.calibration.items()} | _arrays(bundle)


def _arrays(bundle: Bundle) -> dict[str, bytes]:
    packed = {}
    for name, values in bundle.datasets.items():
        with tempfile.TemporaryFile() as file:
            np.save(file, values, allow_pickle=False)
            file.seek(0)
            packed[f"datasets/{name}.npy"] = file.read()
    return packed


def _source(given: InputFile, roots: Roots) -> pathlib.Path | None:
    """Return the path of an input file, if it exists and lies inside its root."""
    root = {"raw": roots.raw, "processed": roots.processed}.get(given.root, roots.raw).resolve()
    full = (root / given.path).resolve()
    return full if full.is_relative_to(root) and full.is_file() else None


def _put(path: pathlib.Path, content: bytes | pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)


def _parent(to: pathlib.Path) -> pathlib.Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    return to.parent
