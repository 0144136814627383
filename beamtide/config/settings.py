"""Settings documents, and the digests that name them.

The digest of a document covers the modality, its settings, the content of its calibration files and of those that these name,
and the digests of the pipelines whose datasets it takes, in canonical JSON; so the same settings have the same digest on every
machine, and a changed file gives another digest. A change reprocesses what depends on it, and nothing else.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from beamtide.config import calibration
from beamtide.config.models import PipelineConfig
from beamtide.errors import BadInput
from beamtide.messages.base import Digest
from beamtide.messages.metadata import SettingsDocument

MAX_CALIBRATION = 64 << 20


@dataclass(frozen=True, slots=True)
class PreparedSettings:
    """A settings document, its digest, and the calibration files it names: name -> content."""

    document: SettingsDocument
    digest: Digest
    files: dict[str, bytes]


def document_for(
    pipeline: PipelineConfig, shared: pathlib.Path, others: Mapping[str, PipelineConfig] = MappingProxyType({})
) -> PreparedSettings:
    """Read a pipeline's calibration files below `shared` and make its settings document; `others` are the site's pipelines."""
    files = {name: _read(pipeline.pipeline, name, path) for name, path in calibration_of(pipeline, shared).items()}
    taken = sorted({text.partition("/")[0] for text in pipeline.inputs} & others.keys())
    document = SettingsDocument(
        modality=pipeline.modality,
        values=canonical(pipeline.settings),
        calibration={name: digest_of_bytes(content) for name, content in files.items()},
        upstream={name: document_for(others[name], shared, others).digest for name in taken},
    )
    return PreparedSettings(document, digest_of(document), files)


def calibration_of(pipeline: PipelineConfig, shared: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return where a pipeline's calibration files lie, with those that they name; BadInput for one that leaves `shared`."""
    start = f"pipeline {pipeline.pipeline}"
    given = {
        name: calibration.within(shared / path, shared, f"{start}, calibration.{name}")
        for name, path in pipeline.calibration.items()
    }
    try:
        return calibration.with_named(pipeline.modality, given, shared)
    except BadInput as error:
        raise BadInput(f"{start}, {error}") from error


def canonical(values: object) -> str:
    """Return JSON that is the same for the same values: sorted keys, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(document: SettingsDocument) -> Digest:
    """Return the content address of a document."""
    content = [document.modality, json.loads(document.values), document.calibration]
    content += [document.upstream] if document.upstream else []
    return digest_of_bytes(canonical(content).encode())


def digest_of_bytes(content: bytes) -> Digest:
    """Return the content address of a file."""
    return Digest(hashlib.sha256(content).hexdigest())


def _read(pipeline: str, name: str, full: pathlib.Path) -> bytes:
    where = f"pipeline {pipeline}, calibration.{name}"
    try:
        size = full.stat().st_size
        if size > MAX_CALIBRATION:
            raise BadInput(f"{where}: {full} has {size >> 20} MiB, at most {MAX_CALIBRATION >> 20} MiB are allowed")
        return full.read_bytes()
    except OSError as error:
        raise BadInput(f"{where}: cannot read {full}: {error.strerror}") from error
