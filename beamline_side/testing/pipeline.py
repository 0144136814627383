"""A whole pipeline in this process, on files that are there: all cores from the source to the sink, a worker, and the writer."""

import json
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from beamline_side.hosts.one_scan import is_fed, shape_of
from beamline_side.hosts.reprocess import reprocess
from beamline_side.services.writer.writer import Writer
from beamline_side.testing.in_process import InProcessCaller, InProcessSite
from beamline_side.writers.written import never_written
from beamtide import registry
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, Broken
from beamtide.messages import Message, Ok
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.results import Product
from beamtide.messages.tasks import Lease, LeaseRequest, TaskDone
from beamtide.results import layout
from beamtide.results.reading import ScanResults
from beamtide.results.reading import open as open_results

Section = Mapping[str, Any] | str | pathlib.Path
IDLE = 500
"""Jumps of time without a task after which nothing more will come."""
ROUNDS = 5
"""How often the writer looks until all is written."""


def run_pipeline(  # noqa: PLR0913 - what a site file, a scan and its files are
    pipelines: Section | Sequence[Section],
    scan: str,
    *,
    raw: pathlib.Path | str,
    shape: tuple[int, ...] | None = None,
    folder: pathlib.Path | str | None = None,
    components: Sequence[Section] = (),
) -> ScanResults:
    """Process a scan whose files are all there, in this process, and return its results.

    `pipelines` are pipeline files, or what would stand in them; `components` likewise. `raw` is the folder of the files;
    calibration files are looked up there, or beside the first pipeline file. `shape` is (slow, fast) or (points,); without it,
    the files are asked. Everything lies below `folder` (default: a temporary one, which goes with the results). BadInput: what
    `beamtide check` would say, and what a writer refuses. Whatever a kernel raises is raised here, so that a debugger sees it.
    """
    listed = [pipelines] if isinstance(pipelines, Mapping | str | pathlib.Path) else list(pipelines)
    where = pathlib.Path(folder) if folder is not None else pathlib.Path(tempfile.mkdtemp(prefix="beamtide-"))
    try:
        deployment = _written(where.resolve(), pathlib.Path(raw).resolve(), (listed, components))
        _process(deployment, Scan(id=ScanId(layout.checked(scan)), shape=shape or shape_of(deployment, scan)))
        results = _opened(deployment, scan)
    except BaseException:
        if folder is None:
            shutil.rmtree(where, ignore_errors=True)
        raise
    if folder is None:
        weakref.finalize(results, shutil.rmtree, where, ignore_errors=True)
    return results


def _written(folder: pathlib.Path, raw: pathlib.Path, parts: tuple[Sequence[Section], Sequence[Section]]) -> Deployment:
    """Write a site file and what it lists, and load it. BadInput: what is wrong with it."""
    (folder / "site").mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {"pipelines": [], "components": []}
    for kind, sections in zip(files, parts, strict=True):
        for number, section in enumerate(sections):
            path = folder / "site" / f"{kind}-{number}.yaml"
            if isinstance(section, Mapping):
                path.write_text(json.dumps(section, indent=1))  # JSON is YAML
            files[kind].append(str(path if isinstance(section, Mapping) else pathlib.Path(section).resolve()))
    beside = next((pathlib.Path(one).resolve().parent for one in parts[0] if not isinstance(one, Mapping)), raw)
    roots = {"raw": str(raw), "processed": str(folder / "processed"), "shared": str(beside)}
    scaling = {"caps": {"jobs": 0, "node_hours_per_day": 0}}
    content = {"site": "in-process", "roots": roots, "state": str(folder / "state"), "scaling": scaling, **files}
    file = folder / "site" / "site.yaml"
    file.write_text(json.dumps(content, indent=1))
    if problems := site.check(file):
        raise BadInput("\n".join(problems))
    return site.load(file)


def _process(deployment: Deployment, scan: Scan) -> None:
    """Compute and write a scan."""
    cores = InProcessSite(deployment)
    caller = InProcessCaller(deployment, cores)
    client = Client(deployment, caller=caller)
    worker = registry.find("in_process", "worker")(deployment, caller)
    client.scan_started(scan)
    client.scan_ended(scan.id)
    reprocess(client, scan.id)
    wanted = [
        Product(scan=scan.id, pipeline=PipelineName(name), settings=digest)
        for name, digest in site.settings_of(deployment).items()
        if is_fed(deployment, name)
    ]
    idle = 0
    while not _complete(client, wanted):
        leases = [lease for name in deployment.pipelines if (lease := _leased(caller, deployment, name)) is not None]
        for lease in leases:
            _compute(worker, caller, deployment, lease)
        idle = 0 if leases else idle + 1
        if idle > IDLE or (not leases and not cores.wait()):
            raise Broken(f"{scan.id} does not come to its end: {cores.why()}")
    _write(deployment, caller, wanted)


def _leased(caller: InProcessCaller, deployment: Deployment, pipeline: str) -> Lease | None:
    question = LeaseRequest(worker="in-process", job="in-process", wait=0.0, host="localhost")
    answer = caller.ask(deployment.address(f"buffer.{pipeline}"), question, Message)
    return answer if isinstance(answer, Lease) else None


def _compute(worker: Any, caller: InProcessCaller, deployment: Deployment, lease: Lease) -> None:
    task = lease.task
    result, arrays = worker.compute(task, lease.attempt)
    caller.ask(deployment.address(f"sorter.{task.pipeline}"), result, Ok, arrays=arrays)
    done = TaskDone(worker="in-process", task=task.id, attempt=lease.attempt, outcome=result.outcome, seconds=0.0)
    caller.ask(deployment.address(f"buffer.{task.pipeline}"), done, Message)


def _complete(client: Client, wanted: Sequence[Product]) -> bool:
    """Whether every index of every product has a verdict."""
    if not wanted:
        return True
    points = client.scans(wanted[0].scan)[0].points
    return {state.product for state in client.products(wanted[0].scan) if state.complete >= points} >= set(wanted)


def _write(deployment: Deployment, caller: InProcessCaller, wanted: Sequence[Product]) -> None:
    writer = Writer(deployment, caller)
    try:
        for _ in range(ROUNDS):
            writer.step()
            if not writer.progress()["open"]:
                break
    finally:
        writer.close()
    if writer.why():
        raise BadInput(writer.why())
    processed = deployment.site.roots.processed
    missing = [
        name for product in wanted for name in never_written(processed, product, deployment.pipelines[product.pipeline].write)
    ]
    if missing:
        raise Broken(f"{', '.join(missing)} of {wanted[0].scan} was not written")


def _opened(deployment: Deployment, scan: str) -> ScanResults:
    """Return what was written as result files; nothing where no pipeline writes them."""
    processed = deployment.site.roots.processed
    there = any(layout.scan_folder(processed, scan).glob("*.h5"))
    return open_results(scan, processed) if there else ScanResults(scan, {})
