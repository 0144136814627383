"""One scan from files to maps on this machine: `beamtide run`, and what the demo shares with it.

Everything real runs (services, autoscaler, jobs, one-task workers), each in a process of its own, with sockets in the state
folder: no keys, no ports, no batch system.
"""

import pathlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.reprocess import Reprocessing, reprocess, settled
from beamline_side.writers.written import forget_refusals, listed, never_written, unwritten
from beamtide import clock, registry
from beamtide.client.adoption import adopted
from beamtide.client.client import Client
from beamtide.client.snapshot import Snapshot, snapshot
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, NoAnswer
from beamtide.files.watch import members
from beamtide.formats import confinement
from beamtide.formats.natural import natural
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.results import Product, ProductState
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
    unwritten: tuple[str, ...] = ()
    """What the pipeline files want written and never will be, with reasons."""
    holes: tuple[str, ...] = ()
    """How many indexes have no result, and why, one sentence for each pipeline."""


def run_scan(deployment: Deployment, scan: Scan, on_progress: OnProgress, *, fresh: bool = False) -> ScanOutcome:
    """Process a scan whose files all exist; results of an interrupted run are kept, and holes are looked at again.

    `fresh`: start over. BadInput, before anything starts: what `site.check` finds.
    """
    if problems := site.check(deployment.file):
        raise BadInput("\n".join(problems))
    started = clock.monotonic()
    forget_refusals(deployment.site.roots.processed, scan.id)
    with Host(deployment) as host, Client(deployment) as client:
        known = client.scans(scan.id)
        if known:
            check_shape(known[0].scan, scan, deployment.site.state)
            adopted(client, known[0])
        else:
            client.scan_started(scan)
        if client.scans(scan.id)[0].phase != "ended":
            client.scan_ended(scan.id)
        again = reprocess(client, scan.id, fresh=fresh) if fresh or _is_done(client, scan.id) else Reprocessing({})
        wanted = _products(client, scan.id)
        last = follow(host, deployment, scan.id, on_progress, lambda: settled(client, again.filling))
        holes = [said for state in client.products(scan.id) if state.product in wanted and (said := _holes_of(state))]
    seconds, never = clock.monotonic() - started, _never_written(deployment, wanted)
    return ScanOutcome(scan.id, seconds, last, files_of(deployment, scan.id), never, (*again.remarks, *holes))


def _holes_of(state: ProductState) -> str:
    """Say how many indexes of a product have no result, and the most frequent reason; "" if all have."""
    counts: Counter[str] = Counter()
    for hole in state.holes:
        counts[hole.reason] += hole.stop - hole.start
    if not counts:
        return ""
    (reason, most), *others = counts.most_common()
    more = f" (and {sum(count for _, count in others)} for other reasons)" if others else ""
    return f"{state.product.pipeline}: {most} of {state.complete} indexes have no result: {reason}{more}"


def check_shape(known: Scan, wanted: Scan, state: pathlib.Path) -> None:
    """BadInput: a scan was processed here before, with another shape, which would stay."""
    if known.shape != wanted.shape:
        was, now = ("x".join(map(str, scan.shape)) for scan in (known, wanted))
        raise BadInput(
            f"{wanted.id} was processed with shape {was} before, according to {state}, and not with {now}: "
            f"give --shape {was}, or name another state folder in the site file"
        )
    if wanted.snake and not known.snake:
        raise BadInput(
            f"{wanted.id} was processed without --snake before, according to {state}: say snake: true in the pipeline files, or "
            "name another state folder in the site file"
        )


def follow(host: Host, deployment: Deployment, scan: ScanId, on_progress: OnProgress, over: Callable[[], bool]) -> Snapshot:
    """Keep the components alive and report until everything that this site writes of the scan is written."""
    wanted: list[Product] = []
    with Client(deployment, PATIENCE) as client:
        while True:
            host.tend()
            try:
                wanted = wanted or [one for one in _products(client, scan) if is_fed(deployment, one.pipeline)]
                finished = over() and not any(_is_unwritten(client, product) for product in wanted)
                seen = snapshot(client, scan)
            except NoAnswer:  # a service is restarting; its spool restores everything
                continue
            on_progress(seen)
            if finished:
                return _without_old_news(seen)
            clock.pause(REFRESH)


def _without_old_news(seen: Snapshot) -> Snapshot:
    """Return the last look without what the writer said of this scan in its last heartbeat: by now its files are written."""
    old = f" of {seen.scan} "
    return replace(seen, notes={name: why for name, why in seen.notes.items() if name != "writer" or old not in why})


def is_fed(deployment: Deployment, pipeline: str) -> bool:
    """Whether somebody here makes tasks of a pipeline for every index: the source, or a component of another distribution."""
    return deployment.pipelines[pipeline].source.kind != "submitted" or bool(deployment.added)


def _products(client: Client, scan: ScanId) -> list[Product]:
    digests = site.settings_of(client.deployment, client.scans(scan)[0].rounds)
    return [Product(scan=scan, pipeline=PipelineName(name), settings=digest) for name, digest in digests.items()]


def _is_done(client: Client, scan: ScanId) -> bool:
    """Whether a scan is complete in every pipeline, with whatever settings, so that the source has nothing to do with it."""
    points = client.scans(scan)[0].points
    done = {one.product.pipeline for one in client.products(scan) if one.complete >= points}
    return done >= {name for name, pipeline in client.deployment.pipelines.items() if pipeline.source.kind != "submitted"}


def _is_unwritten(client: Client, product: Product) -> bool:
    """Whether a product has indexes without a verdict, or the writer has files of it to write."""
    state = next((one for one in client.products(product.scan, product.pipeline) if one.product == product), None)
    scan = client.scans(product.scan)[0]
    if state is None or state.complete < scan.points:
        return True
    deployment, pipeline = client.deployment, client.deployment.pipelines[product.pipeline]
    positions = site.settings_of(deployment, scan.rounds).get(pipeline.positions or "", "")
    drawn_with = state.corrections, positions
    reasons = unwritten(deployment.site.roots.processed, product, scan, pipeline.write, drawn_with).values()
    return not state.filed and not all(reasons)


def _never_written(deployment: Deployment, products: list[Product]) -> tuple[str, ...]:
    """Return a sentence for each format in which a product will not be written."""
    processed, formats = deployment.site.roots.processed, {name: one.write for name, one in deployment.pipelines.items()}
    return tuple(
        f"{product.pipeline} is not written as {name}: {why}"
        for product in products
        if is_fed(deployment, product.pipeline)
        for name, why in never_written(processed, product, formats[product.pipeline]).items()
    )


def shape_of(deployment: Deployment, scan: str) -> tuple[int, ...]:
    """Ask the first file of each pipeline for the shape of a scan. BadInput: none of them knows."""
    for pipeline in deployment.pipelines.values():
        if pipeline.source.kind != "files":
            continue
        raw, match = deployment.site.roots.raw, pipeline.source.match
        stitched = members(scan, raw, match)
        found = raw.glob(match.replace("{scan}", stitched[0]))
        files = sorted(found, key=lambda file: natural(file.relative_to(raw).as_posix()))
        if files:
            confinement.before_opening(files[0], raw)
            if shape := registry.find("formats", pipeline.source.format).shape_of(files[0]):
                return (shape[0] * len(stitched), *shape[1:])
    raise BadInput(
        f"{scan}: no file below {deployment.site.roots.raw} says how many points it has; add --shape, e.g. --shape 11x101"
    )


def files_of(deployment: Deployment, scan: str) -> tuple[pathlib.Path, ...]:
    """Return the files of a scan, result files first; those of superseded settings are left out."""
    found = listed(layout.scan_folder(deployment.site.roots.processed, scan), shown=True)
    return tuple(sorted(found, key=lambda path: path.suffix != ".h5"))
