"""From a settings digest to a kernel that is ready to compute.

Documents and calibration files are kept in the state folder under their digest: written beside and renamed, so that any number of
workers may do it at once, and verified by digest whenever they are read. A damaged copy is fetched again.
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

from beamtide import __version__, registry
from beamtide.config import settings
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.machine import Arrays
from beamtide.messages.base import Digest
from beamtide.messages.metadata import File, GetFileRequest, GetSettingsRequest, Settings, SettingsDocument
from beamtide.pump import Caller
from beamtide.results import layout
from cluster_side.modalities.base import Modality, Output
from cluster_side.modalities.context import Context
from cluster_side.worker.task import prepared_arrays

PATIENCE = 60.0
IMAGE = "BEAMTIDE_IMAGE"
"""Environment variable with the digest of the image that we run in: it belongs into every result."""
FindModality = Callable[[str], Modality]


@dataclass(frozen=True, slots=True)
class ReadyKernel:
    """A kernel with its settings in it, what it returns, and the versions of what it computes with."""

    digest: Digest
    kernel: Callable[..., Arrays]
    declared: tuple[Output, ...]
    versions: dict[str, str]
    suits: Callable[[Mapping[str, str]], None] = lambda _: None
    """Raises BadInput for units of other pipelines' datasets that do not fit the settings."""
    context: bool = False
    """Whether the kernel wants to know who computes and watches."""
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
    """Load the kernel for settings that we have at hand, and leave them in the cache."""
    for name, content in prepared.files.items():
        _publish(_file_path(cache, name, prepared.document.calibration[name]), content)
    _publish(cache / f"{prepared.digest}.json", msgspec.json.encode(prepared.document))
    return _load(prepared.digest, prepared.document, cache, find)


def obtain(digest: Digest, cache: pathlib.Path, ask: tuple[Caller, str], find: FindModality = registered) -> ReadyKernel:
    """Load the kernel for a digest; `ask` is how to reach the metadata server, for what the cache does not hold."""
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
        raise BadInput(
            f"{document.modality} needs the calibration file {missing[0]!r}: add it under calibration in the pipeline file"
        )
    versions = {"beamtide": __version__} | {name: _version(name) for name in modality.packages}
    key = settings.digest_of_bytes(settings.canonical([digest, versions, modality.layout]).encode())
    keep = prepared_arrays.keeper(cache / "prepared", key)
    try:
        kernel, declared = modality.load(values, calibration, keep), modality.declared(values)
    except ValidationError as error:
        raise BadInput(f"settings of {document.modality}: {' '.join(str(error).split())}") from error
    if image := os.environ.get(IMAGE):
        versions["container image"] = image
    suits = partial(modality.suits, values)
    return ReadyKernel(digest, kernel, declared, versions, suits, modality.context, modality.check_source)


def _document(digest: Digest, cache: pathlib.Path, ask: tuple[Caller, str]) -> SettingsDocument:
    path = cache / f"{layout.checked(digest)}.json"
    try:
        document = msgspec.json.decode(path.read_bytes(), type=SettingsDocument)
        if settings.digest_of(document) == digest:
            return document
    except (OSError, msgspec.DecodeError, ValueError):
        pass  # not there, or damaged: fetch it (again)
    caller, address = ask
    document = caller.ask(address, GetSettingsRequest(digest=digest), Settings, patience=PATIENCE).document
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
