"""From files to a deployment: the site file, its pipeline files, and everything that can be known to be wrong before a start."""

import json
import os
import pathlib
from dataclasses import dataclass

from beamtide import registry
from beamtide.config import settings, yaml_file
from beamtide.config.container import Container
from beamtide.config.models import Deployment, PipelineConfig, SiteConfig
from beamtide.errors import BadInput
from beamtide.messages.base import Digest

NOT_OURS = "you cannot write to {}; look as the user who runs Beamtide, or correct the path"
LOOPBACK = ("127.0.0.1", "localhost")
"""Where sockets without keys may listen: nobody gets in half secured."""


def load(file: pathlib.Path) -> Deployment:
    """Read a site file and its pipelines. BadInput: one line per problem, all of them."""
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
    deployment = Deployment(site=site, pipelines=pipelines, file=file.resolve())
    found += _relations(deployment, documents) if not found else []
    found += _places(deployment, document)
    if found:
        raise BadInput("\n".join(found))
    return deployment


def shared_root(deployment: Deployment) -> pathlib.Path:
    """Return the folder below which calibration files are looked up."""
    return deployment.site.roots.shared or deployment.file.parent


def settings_of(deployment: Deployment) -> dict[str, Digest]:
    """Return the digest of each pipeline's settings as the files say them now; BadInput for one that cannot be read."""
    shared, every = shared_root(deployment), deployment.pipelines
    return {name: settings.document_for(pipeline, shared, every).digest for name, pipeline in every.items()}


@dataclass(frozen=True, slots=True)
class Changes:
    """What a person wants otherwise than the site file says; None and () leave it."""

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
    """Return every problem of a site that can be found without starting anything, also in settings and calibration files."""
    try:
        deployment = load(file)
    except BadInput as error:
        return str(error).splitlines()
    found = [] if deployment.site.roots.raw.is_dir() else [f"{file.name}  roots.raw: {deployment.site.roots.raw} is not a folder"]
    wanted = {"roots.processed": deployment.site.roots.processed, "state": deployment.site.state}
    found += [f"{file.name}  {what}: {NOT_OURS.format(folder)}" for what, folder in wanted.items() if not _writable(folder)]
    for name, pipeline in deployment.pipelines.items():
        try:
            registry.find("formats", pipeline.source.format)
            shared = shared_root(deployment)
            settings.document_for(pipeline, shared, deployment.pipelines)
            modality = registry.find("modalities", pipeline.modality)
            modality.check_source(pipeline.source)
            modality.check(pipeline.settings, {what: shared / path for what, path in pipeline.calibration.items()})
            modality.suits(pipeline.settings, _units_of_inputs(deployment, pipeline))
        except BadInput as error:
            text = str(error)
            found.append(text if text.startswith("pipeline ") else f"pipeline {name}: {text}")
    return found


def _writable(folder: pathlib.Path) -> bool:
    """Whether we may write to a folder, or make it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


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
    files: list[pathlib.Path] = []
    for path in site.pipelines:
        matches = sorted(folder.glob(str(path))) if "*" in str(path) else []
        files += matches or [full(path)]
    container = site.container
    if container.image is not None:
        container = container.model_copy(update={"image": full(container.image)})
    network = site.network
    if network.keys is not None:
        network = network.model_copy(update={"keys": full(network.keys)})
    changed = {"roots": roots, "state": full(site.state), "pipelines": tuple(files), "container": container, "network": network}
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
    found += _image(site.container, document)
    if site.state.is_relative_to(site.roots.raw):
        found.append(f"{document.where(('state',))}: {site.state} lies inside roots.raw, where nothing may be written")
    return found


def _image(container: Container, document: yaml_file.Document) -> list[str]:
    found = []
    if container.runtime != "none" and container.image is None:
        found.append(f"{document.where(('container',))}: runtime {container.runtime} needs an image; see `beamtide image build`")
    if container.stage and not container.digest:
        found.append(f"{document.where(('container', 'stage'))}: a copied image is checked by its digest; add container.digest")
    if container.unpack and not container.stage:
        found.append(f"{document.where(('container', 'unpack'))}: the copy on a node is what is unpacked; add container.stage")
    odd = [name for name, path in container.nodes.items() if not path.is_absolute()]
    found += [f"{document.where(('container', 'nodes', name))}: {container.nodes[name]} must begin with /" for name in odd]
    if any(letter in str(path) for path in (container.image, *container.nodes.values()) for letter in ":,"):
        found.append(f"{document.where(('container',))}: no path may have a colon or a comma, which separate binds")
    return found
