"""One scan from files to maps on this machine: `beamtide run`, and what the demo shares with it.

Everything real runs (services, autoscaler, jobs, one-task workers), each in a process of its own, with sockets in the state
folder: no keys, no ports, no batch system.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

from beamline_side.cores.task_plan import bound, plan
from beamline_side.hosts.all_in_one import Host
from beamline_side.writers.files import finished_file
from beamtide import clock
from beamtide.client.client import Client
from beamtide.client.snapshot import Snapshot, snapshot
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, NoAnswer
from beamtide.files.watch import FileWatch
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.results import Product
from beamtide.results import layout

OnProgress = Callable[[Snapshot], None]
REFRESH = 0.3
PATIENCE = 1.0
"""Seconds for which a request to the services may wait: meanwhile components that died are not restarted."""


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """The outcome of a scan: seconds it took, the last snapshot, and the files, result files first."""

    scan: str
    seconds: float
    last: Snapshot
    files: tuple[pathlib.Path, ...]


def run_scan(deployment: Deployment, scan: Scan, on_progress: OnProgress) -> ScanOutcome:
    """Process a scan whose files all exist; results of an interrupted run are kept.

    BadInput, before anything starts: what `site.check` finds.
    """
    if problems := site.check(deployment.file):
        raise BadInput("\n".join(problems))
    started = clock.monotonic()
    with Host(deployment) as host, Client(deployment) as client:
        if known := client.scans(scan.id):
            check_shape(known[0].scan, scan, deployment.site.state)
        else:
            client.scan_started(scan)
        if client.scans(scan.id)[0].phase != "ended":
            client.scan_ended(scan.id)
        if _was_done_otherwise(client, scan.id):
            _submit_again(client, scan.id)
        last = follow(host, deployment, scan.id, on_progress, lambda: True)
    return ScanOutcome(scan.id, clock.monotonic() - started, last, files_of(deployment, scan.id))


def check_shape(known: Scan, wanted: Scan, state: pathlib.Path) -> None:
    """BadInput: a scan was processed here before, with another shape, which would stay."""
    if known.shape != wanted.shape:
        was, now = ("x".join(map(str, scan.shape)) for scan in (known, wanted))
        raise BadInput(
            f"{wanted.id} was processed with shape {was} before, according to {state}, and not with {now}: "
            f"give --shape {was}, or name another state folder in the site file"
        )


def follow(host: Host, deployment: Deployment, scan: ScanId, on_progress: OnProgress, over: Callable[[], bool]) -> Snapshot:
    """Keep the components alive and report until everything that this site writes of the scan is written."""
    wanted = _products(deployment, scan)
    with Client(deployment, PATIENCE) as client:
        while True:
            host.tend()
            try:
                finished = over() and not any(_is_unwritten(client, product) for product in wanted)
                seen = snapshot(client, scan)
            except NoAnswer:  # a service is restarting; its spool restores everything
                continue
            on_progress(seen)
            if finished:
                return seen
            clock.pause(REFRESH)


def _products(deployment: Deployment, scan: ScanId) -> list[Product]:
    digests = site.settings_of(deployment)
    return [Product(scan=scan, pipeline=PipelineName(name), settings=digest) for name, digest in digests.items()]


def _was_done_otherwise(client: Client, scan: ScanId) -> bool:
    """Whether a scan is complete in every pipeline, but with other settings than the present ones: the source ignores it."""
    points = client.scans(scan)[0].points
    complete = {one.product for one in client.products(scan) if one.complete >= points}
    pipelines = {product.pipeline for product in complete}
    return pipelines >= set(client.deployment.pipelines) and not complete >= set(_products(client.deployment, scan))


def _submit_again(client: Client, scan: ScanId) -> None:
    """Submit a whole scan with the present settings; tasks that are known already change nothing."""
    state = client.scans(scan)[0]
    for pipeline in client.deployment.pipelines.values():
        facts = FileWatch(client.deployment.site.roots.raw, scan, pipeline.source).look(clock.monotonic())
        digest = client.put_settings(pipeline)
        upstream = client.settings(digest).upstream
        client.submit([bound(task, upstream) for task in plan(state, pipeline, digest, facts, closed=True)])


def _is_unwritten(client: Client, product: Product) -> bool:
    """Whether a product has indexes without a verdict, or the writer has files of it to write."""
    state = next((one for one in client.products(product.scan, product.pipeline) if one.product == product), None)
    scan = client.scans(product.scan)[0]
    if state is None or state.complete < scan.points:
        return True
    formats = client.deployment.pipelines[product.pipeline].write
    if "hdf5" in formats:
        positions = site.settings_of(client.deployment).get(client.deployment.pipelines[product.pipeline].positions or "", "")
        return finished_file(client.deployment.site.roots.processed, product, scan, state.corrections, positions) is None
    writer = next((report.progress for report in client.topology() if report.card.name == "writer"), {})
    return bool(formats) and (writer.get("seen", 0) < state.version or writer.get("open", 1) > 0)


def files_of(deployment: Deployment, scan: str) -> tuple[pathlib.Path, ...]:
    """Return the files of a scan, result files first."""
    folder = layout.scan_folder(deployment.site.roots.processed, scan)
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple(sorted(found, key=lambda path: path.suffix != ".h5"))
