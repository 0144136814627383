"""Reads a site file and its pipeline files into a `Deployment`, and finds everything that is wrong before a start."""

import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from beamtide import registry
from beamtide.config import added, container, settings, yaml_file
from beamtide.config.models import Deployment, PipelineConfig, SiteConfig
from beamtide.errors import BadInput
from beamtide.messages.base import Digest

NOT_OURS = "you cannot write to {}; check as the user who runs Beamtide, or correct the path"
LOOPBACK = ("127.0.0.1", "localhost")
"""Addresses where sockets may listen without keys."""


def load(file: pathlib.Path) -> Deployment:
    """Read a site file and its pipelines. BadInput: one line per problem, all of them."""
    return _read(file)[0]


def _read(file: pathlib.Path) -> tuple[Deployment, dict[str, yaml_file.Document]]:
    """Return a deployment, and its pipeline files by the names of the pipelines."""
    document = yaml_file.read(file)
    site = _absolute(yaml_file.validate(document, SiteConfig), file.parent.resolve())
    found: list[str] = []
    pipelines: dict[str, PipelineConfig] = {}
    documents: dict[str, yaml_file.Document] = {}
    for path in site.pipelines:
        try:
            read = yaml_file.read(path)
            pipeline = yaml_file.validate(read, PipelineConfig)
        except BadInput as error:
            found.append(str(error))
            continue
        if pipeline.pipeline in pipelines:
            found.append(f"{read.where(('pipeline',))}: {pipeline.pipeline} stands in two pipeline files; rename one")
        pipelines[pipeline.pipeline], documents[pipeline.pipeline] = pipeline, read
    more, wrong = added.read(site.components)
    found += wrong
    components = {name: config for name, (config, _) in more.items()}
    deployment = Deployment(site=site, pipelines=pipelines, file=file.resolve(), added=components)
    found += [*_relations(deployment, documents), *added.clashes(more, deployment)] if not found else []
    found += _places(deployment, document)
    if found:
        raise BadInput("\n".join(found))
    return deployment, documents


def shared_root(deployment: Deployment) -> pathlib.Path:
    """Return the folder below which calibration files are looked up."""
    return deployment.site.roots.shared or deployment.file.parent


def settings_of(deployment: Deployment, rounds: Mapping[str, int] = settings.NO_ROUNDS) -> dict[str, Digest]:
    """Return the digest of each pipeline's settings as the files say them now; BadInput for one that cannot be read.

    `rounds`: those of a scan (`ScanState.rounds`).
    """
    shared, every = shared_root(deployment), deployment.pipelines
    return {name: settings.document_for(pipeline, shared, every, rounds).digest for name, pipeline in every.items()}


@dataclass(frozen=True, slots=True)
class Changes:
    """Command-line changes to a site file; None and () change nothing."""

    raw: pathlib.Path | None = None
    processed: pathlib.Path | None = None
    jobs: int | None = None
    pipelines: tuple[str, ...] = ()


def derived(deployment: Deployment, changes: Changes) -> Deployment:
    """Write a changed site file into the state folder, so that every component reads the same, and load it."""
    site, files = deployment.site, dict(zip(deployment.pipelines, deployment.site.pipelines, strict=True))
    if unknown := [name for name in changes.pipelines if name not in files]:
        raise BadInput(f"there is no pipeline {unknown[0]!r}; known: {', '.join(files)}")
    content = site.model_dump(mode="json")
    content["roots"]["shared"] = str(shared_root(deployment))
    content["roots"]["raw"] = str((changes.raw or site.roots.raw).resolve())
    content["roots"]["processed"] = str((changes.processed or site.roots.processed).resolve())
    content["scaling"]["caps"]["jobs"] = site.scaling.caps.jobs if changes.jobs is None else changes.jobs
    content["pipelines"] = [str(path) for name, path in files.items() if not changes.pipelines or name in changes.pipelines]
    file = site.state / "derived.yaml"
    try:
        site.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps(content, indent=1))  # JSON is YAML
    except OSError as error:
        raise BadInput(f"cannot write to the state folder {site.state}: {error.strerror}") from error
    return load(file)


def check(file: pathlib.Path) -> list[str]:
    """Return every problem of a site that can be found without starting it, also in settings and calibration files."""
    try:
        deployment, documents = _read(file)
    except BadInput as error:
        return str(error).splitlines()
    found = [] if deployment.site.roots.raw.is_dir() else [f"{file.name}  roots.raw: {deployment.site.roots.raw} is not a folder"]
    found += [*launcher_problems(deployment), *added.problems(deployment)]
    wanted = {"roots.processed": deployment.site.roots.processed, "state": deployment.site.state}
    found += [f"{file.name}  {what}: {NOT_OURS.format(folder)}" for what, folder in wanted.items() if not _writable(folder)]
    found += _locks(deployment)
    for name, pipeline in deployment.pipelines.items():
        if unknown := _unknown(pipeline, documents[name]):
            found += unknown
            continue
        try:
            shared = shared_root(deployment)
            settings.document_for(pipeline, shared, deployment.pipelines)
            modality = registry.find("modalities", pipeline.modality)
            modality.check_source(pipeline.source)
            files = settings.calibration_of(pipeline, shared)
            registry.asked("modalities", pipeline.modality, partial(modality.check, pipeline.settings, files))
            modality.suits(pipeline.settings, _units_of_inputs(deployment, pipeline))
        except BadInput as error:
            text = str(error)
            found.append(text if text.startswith("pipeline ") else f"pipeline {name}: {text}")
    return found


def launcher_problems(deployment: Deployment) -> list[str]:
    """Return what is wrong with the launcher that a site file names, and with the settings of any launcher there."""
    site, document, found = deployment.site, yaml_file.read(deployment.file), list[str]()
    if ("launcher",) in document.lines:  # where settings that are missing belong to
        document.lines.setdefault(("launchers",), document.lines["launcher",])
    for name in {site.launcher: 0, **site.launchers}:
        path = ("launcher",) if name == site.launcher else ("launchers", name)
        try:
            model = registry.find("launchers", name).settings
            model.model_validate(site.launchers.get(name, {}))
        except ValidationError as error:
            found += yaml_file.problems(document, model, error, ("launchers", name))
        except BadInput as error:
            found.append(f"{document.where(path)}: {error}")
    return found


def _unknown(pipeline: PipelineConfig, document: yaml_file.Document) -> list[str]:
    """Return what a pipeline file names and nobody has installed."""
    found = []
    wanted: dict[tuple[str, str], yaml_file.Path] = {("formats", pipeline.source.format): ("source", "format")}
    wanted[("modalities", pipeline.modality)] = ("modality",)
    wanted |= {("writers", name): ("write", position) for position, name in enumerate(pipeline.write)}
    for plugin, path in wanted.items():
        try:
            registry.find(*plugin)
        except BadInput as error:
            found.append(f"{document.where(path)}: {error}")
    return found


def _writable(folder: pathlib.Path) -> bool:
    """Whether we may write to a folder, or make it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _locks(deployment: Deployment) -> list[str]:
    """Say so if the file system of the raw files has no locks, which HDF5 needs: one file of any scan shows it."""
    from beamtide.formats.opening import without_locks  # loads h5py

    raw = deployment.site.roots.raw
    patterns = {one.source.match.replace("{scan}", "*") for one in deployment.pipelines.values() if one.source.match}
    some = next((file for pattern in sorted(patterns) for file in raw.glob(pattern) if file.is_file()), None)
    said = without_locks(some) if some is not None else ""
    return [f"{deployment.file.name}  roots.raw: {said}"] if said else []


def _units_of_inputs(deployment: Deployment, pipeline: PipelineConfig) -> dict[str, str]:
    found = {}
    for text in pipeline.inputs:
        name, _, dataset = text.partition("/")
        other = deployment.pipelines[name]
        try:
            found[text] = registry.find("modalities", other.modality).unit_of(other.settings, dataset)
        except BadInput as error:
            raise BadInput(f"inputs: {text}: {error}") from error
    return found


def _absolute(site: SiteConfig, folder: pathlib.Path) -> SiteConfig:
    def full(path: pathlib.Path) -> pathlib.Path:
        return (folder / path.expanduser()).resolve()

    roots = site.roots.model_copy(
        update={name: full(path) for name in ("raw", "processed", "shared") if (path := getattr(site.roots, name)) is not None}
    )

    def listed(paths: tuple[pathlib.Path, ...]) -> tuple[pathlib.Path, ...]:
        found = [sorted(folder.glob(str(path))) or [full(path)] if "*" in str(path) else [full(path)] for path in paths]
        return tuple(file for some in found for file in some)

    container = site.container
    if container.image is not None:
        container = container.model_copy(update={"image": full(container.image)})
    network = site.network
    if network.keys is not None:
        network = network.model_copy(update={"keys": full(network.keys)})
    lists = {"pipelines": listed(site.pipelines), "components": listed(site.components)}
    changed = {**lists, "roots": roots, "state": full(site.state), "container": container, "network": network}
    return site.model_copy(update=changed)


def _relations(deployment: Deployment, documents: dict[str, yaml_file.Document]) -> list[str]:
    found, names = [], sorted(deployment.pipelines)
    for name, pipeline in deployment.pipelines.items():
        others = {("inputs",): [text.partition("/")[0] for text in pipeline.inputs]}
        others[("positions",)] = [pipeline.positions] if pipeline.positions else []
        for path, wanted in others.items():
            where = documents[name].where(path)
            found += [
                f"{where}: there is no pipeline {other}; known: {', '.join(names)}" for other in wanted if other not in names
            ]
            found += [f"{where}: {name} cannot wait for itself" for other in wanted if other == name]
        if pipeline.source.kind == "scan" and not pipeline.inputs:
            found.append(f"{documents[name].where(('source',))}: a scan as source needs inputs, the datasets of other pipelines")
        found += [
            f"{documents[name].where(('inputs',))}: {text!r} has no dataset; write it as pipeline/dataset"
            for text in pipeline.inputs
            if not text.partition("/")[2]
        ]
    return found or _circles(deployment)


def _circles(deployment: Deployment) -> list[str]:
    needs = {name: {text.partition("/")[0] for text in one.inputs} for name, one in deployment.pipelines.items()}
    while free := [name for name, wanted in needs.items() if not wanted & needs.keys()]:
        for name in free:
            del needs[name]
    return [f"pipelines {', '.join(sorted(needs))} wait for each other's results (inputs); break the circle"] if needs else []


def _places(deployment: Deployment, document: yaml_file.Document) -> list[str]:
    site, found = deployment.site, []
    first, last = (int(number) for number in site.network.ports.split("-"))
    if last - first + 1 < len(deployment.components()) or not 0 < first <= last < 65536:
        found.append(f"{document.where(('network', 'ports'))}: {len(deployment.components())} ports are needed, below 65536")
    if site.network.bind not in (*LOOPBACK, "ipc") and site.network.keys is None:
        found.append(
            f"{document.where(('network', 'bind'))}: {site.network.bind} can be reached from other machines, and there are "
            f"no keys; make some with `beamtide keys new` and name their folder in network.keys, or use ipc or {LOOPBACK[0]}"
        )
    found += container.problems(site.container, document)
    if site.state.is_relative_to(site.roots.raw):
        found.append(f"{document.where(('state',))}: {site.state} lies inside roots.raw, where nothing may be written")
    return found
