"""The ready kernel: from a settings digest to a kernel that can compute.

Documents and calibration files are cached in the state folder under their digest: written under a temporary name and renamed, so
that any number of workers may do it at once, and verified by digest whenever they are read. A damaged copy is fetched again.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import msgspec
from pydantic import ValidationError

from beamtide import registry
from beamtide.config import settings
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.machine import Arrays
from beamtide.messages.base import Digest
from beamtide.messages.metadata import File, GetFileRequest, GetSettingsRequest, SettingsAnswer, SettingsDocument
from beamtide.pump import Caller
from beamtide.results import layout
from beamtide.version import __version__
from cluster_side.modalities.base import Modality, Output
from cluster_side.modalities.context import Context
from cluster_side.worker.task import prepared_arrays

PATIENCE = 60.0
IMAGE = "BEAMTIDE_IMAGE"
"""Environment variable with the digest of the image that we run in: it is written into every result."""
FindModality = Callable[[str], Modality]


class SettingsRefused(BadInput):
    """A modality cannot use these settings or calibration files: no other attempt, and no other worker, ever will."""

    def __init__(self, digest: Digest, reason: str) -> None:
        super().__init__(reason)
        self.digest = digest


@dataclass(frozen=True, slots=True)
class ReadyKernel:
    """A kernel with its settings in it, what it returns, and the versions of what it computes with."""

    digest: Digest
    kernel: Callable[..., Arrays]
    declared: tuple[Output, ...]
    versions: dict[str, str]
    suits: Callable[[Mapping[str, str]], None] = lambda _: None
    """Raises BadInput for units of other pipelines' datasets that do not fit the settings."""
    in_units: Callable[[Arrays, Mapping[str, str]], Arrays] = lambda arrays, _: arrays
    """Returns columns of files in the units of the settings, given those that the files state."""
    context: bool = False
    """Whether the kernel takes a `Context`."""
    follows: bool = False
    """Whether the kernel can begin before its scan has ended."""
    check_source: Callable[[SourceConfig], None] = lambda _: None
    """Raises BadInput for a source whose tasks are not what the modality needs."""

    def compute(self, frames: Arrays, context: Context) -> Arrays:
        """Run the kernel, with its context if it takes one."""
        return self.kernel(frames, context) if self.context else self.kernel(frames)


def registered(name: str) -> Modality:
    """Return an installed modality."""
    found: Modality = registry.find("modalities", name)
    return found


def prepare(prepared: settings.PreparedSettings, cache: pathlib.Path, find: FindModality = registered) -> ReadyKernel:
    """Load the kernel for given settings, and write them into the cache."""
    for name, content in prepared.files.items():
        _publish(_file_path(cache, name, prepared.document.calibration[name]), content)
    _publish(cache / f"{prepared.digest}.json", msgspec.json.encode(prepared.document))
    return _load(prepared.digest, prepared.document, cache, find)


def obtain(digest: Digest, cache: pathlib.Path, ask: tuple[Caller, str], find: FindModality = registered) -> ReadyKernel:
    """Load the kernel for a digest; `ask` asks the metadata server for what is not in the cache."""
    document = _document(digest, cache, ask)
    for name, content in document.calibration.items():
        path = _file_path(cache, name, content)
        if _read(path, content) is None:
            caller, address = ask
            _publish(path, caller.ask(address, GetFileRequest(digest=content), File, patience=PATIENCE).content)
            if _read(path, content) is None:
                raise BadInput(
                    f"the calibration file {name} that came from the metadata server is not the one with digest {content[:8]}"
                )
    return _load(digest, document, cache, find)


def _load(digest: Digest, document: SettingsDocument, cache: pathlib.Path, find: FindModality) -> ReadyKernel:
    modality, values = find(document.modality), json.loads(document.values)
    calibration = {name: _file_path(cache, name, content) for name, content in document.calibration.items()}
    if missing := sorted(set(modality.needs) - calibration.keys()):
        needed = f"{document.modality} needs the calibration file {missing[0]!r}"
        raise SettingsRefused(digest, f"{needed}: add it under calibration in the pipeline file")
    versions = {"beamtide": __version__} | {name: _version(name) for name in modality.packages}
    key = settings.digest_of_bytes(settings.canonical([digest, versions, modality.layout]).encode())
    keep = prepared_arrays.keeper(cache / "prepared", key)
    try:
        kernel, declared = modality.load(values, calibration, keep), modality.declared(values)
    except ValidationError as error:
        raise SettingsRefused(digest, f"settings of {document.modality}: {' '.join(str(error).split())}") from error
    except BadInput as error:
        raise SettingsRefused(digest, str(error)) from error
    if image := os.environ.get(IMAGE):
        versions["container image"] = image
    checks = partial(modality.suits, values), partial(modality.in_units, values)
    return ReadyKernel(digest, kernel, declared, versions, *checks, modality.context, modality.follows, modality.check_source)


def _document(digest: Digest, cache: pathlib.Path, ask: tuple[Caller, str]) -> SettingsDocument:
    path = cache / f"{layout.checked(digest)}.json"
    try:
        document = msgspec.json.decode(path.read_bytes(), type=SettingsDocument)
        if settings.digest_of(document) == digest:
            return document
    except (OSError, msgspec.DecodeError, ValueError):
        pass  # not there, or damaged: fetch it (again)
    caller, address = ask
    document = caller.ask(address, GetSettingsRequest(digest=digest), SettingsAnswer, patience=PATIENCE).document
    if settings.digest_of(document) != digest:
        raise BadInput(f"the settings that came from the metadata server do not have the digest {digest[:8]}")
    _publish(path, msgspec.json.encode(document))
    return document


def _file_path(cache: pathlib.Path, name: str, digest: Digest) -> pathlib.Path:
    return cache / layout.checked(digest) / layout.checked(name)


def _read(path: pathlib.Path, digest: Digest) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if settings.digest_of_bytes(content) == digest else None


def _publish(path: pathlib.Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; is the state folder's disk full?") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
