"""Settings documents, and the digests that name them.

The digest of a document covers the modality, its settings, the content of its calibration files and of those that these name,
the digests of the pipelines whose datasets it takes, and the source: what decides which numbers are read from which files. All of
it in canonical JSON; so the same settings have the same digest on every machine, and a changed file gives another digest. A
change reprocesses what depends on it, and nothing else. How a scan is cut into tasks changes no number and is not covered.
A document of 0.1.0 states no source: the one that it was used with is meant, and its digest stays what it was.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from beamtide.config import calibration
from beamtide.config.models import PipelineConfig
from beamtide.errors import BadInput
from beamtide.messages.base import Digest
from beamtide.messages.metadata import SettingsDocument

MAX_CALIBRATION = 64 << 20
READ = {"match", "format", "options", "first", "frames_per_file"}
"""What of `source` decides which numbers are read, and to which indexes they belong."""
SOURCE = "(source)"
"""What stands among the pipelines that a document takes from, for its source; no pipeline can have this name."""
UNSTATED = -1
"""The round of a scan whose results state no source, those of 0.1.0."""
NO_ROUNDS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PreparedSettings:
    """A settings document, its digest, and the calibration files it names: name -> content."""

    document: SettingsDocument
    digest: Digest
    files: dict[str, bytes]


def document_for(
    pipeline: PipelineConfig,
    shared: pathlib.Path,
    others: Mapping[str, PipelineConfig] = MappingProxyType({}),
    rounds: Mapping[str, int] = NO_ROUNDS,
) -> PreparedSettings:
    """Read a pipeline's calibration files below `shared` and make its settings document; `others` are the site's pipelines.

    `rounds`: how often a scan was started over, by pipeline (`ScanState.rounds`).
    """
    files = {name: _read(pipeline.pipeline, name, path) for name, path in calibration_of(pipeline, shared).items()}
    taken = sorted({text.partition("/")[0] for text in pipeline.inputs} & others.keys())
    upstream = {name: document_for(others[name], shared, others, rounds).digest for name in taken}
    document = SettingsDocument(
        modality=pipeline.modality,
        values=canonical(pipeline.settings),
        calibration={name: digest_of_bytes(content) for name, content in files.items()},
        **with_source(source_of(pipeline, rounds.get(pipeline.pipeline, 0)), upstream),
    )
    return PreparedSettings(document, digest_of(document), files)


def source_of(pipeline: PipelineConfig, started_over: int = 0) -> str:
    """Return, as canonical JSON, what decides which numbers are read; "" where others make the tasks of a pipeline."""
    if started_over == UNSTATED:
        return ""
    files = pipeline.source.kind == "files"
    stated = pipeline.source.model_dump(mode="json", include=READ) if files else {}
    stated |= {"snake": pipeline.snake} if files and pipeline.snake is not None else {}
    stated |= {"round": started_over} if started_over else {}
    return canonical(stated) if stated else ""


def with_source(source: str, upstream: dict[str, Digest]) -> dict[str, Any]:
    """Return these two fields of a document. What it takes from others names the source by digest, like the pipelines.

    So the digest of a document is computed as in 0.1.0, also by workers of older images, which know no other.
    """
    return {"source": source, "upstream": upstream | ({SOURCE: digest_of_bytes(source.encode())} if source else {})}


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
