"""A snapshot of a scan for people: one row per pipeline, put together from the numbers of the services."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from beamtide.client.client import Client
from beamtide.config.models import PipelineConfig
from beamtide.errors import BadInput
from beamtide.messages.metadata import ScanState
from beamtide.messages.scaling import BufferGauge
from beamtide.messages.tasks import Tally
from beamtide.messages.topology import ComponentReport
from beamtide.point_states import OPEN, counted
from beamtide.results.verdict import said_by


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """One pipeline: how many tasks are in each of the seven states (`point_states`), and how it goes on. Times in seconds.

    `rate` in points per second: what the workers can do while something waits, else what comes in.
    """

    not_asked: int
    queued: int
    running: int
    retrying: int
    done: int
    empty: int
    abandoned: int
    total: int
    """All tasks of the scan, the sum of the seven; 0 while nobody knows it."""
    workers: int
    rate: float
    oldest: float
    to_go: float
    retried: int
    """Attempts of the pipeline that failed or were lost, and were followed by another."""
    doubled: int = 0
    """Results that the sorter got twice and kept once."""
    reasons: tuple[str, ...] = ()
    """Why tasks were abandoned, the latest ones."""
    quality: str = ""
    """What a reconstruction says of itself; "" for what says nothing."""

    @property
    def closed(self) -> int:
        """Tasks that have their verdict."""
        return self.done + self.empty + self.abandoned

    @property
    def finished(self) -> bool:
        """Whether every task has its verdict."""
        return self.closed == self.total > 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a scan; `notes` say why work waits."""

    scan: str
    pipelines: dict[str, PipelineRow]
    autoscaler: str
    notes: dict[str, str]
    points: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def newest_scan(client: Client, scan: str = "") -> str:
    """Return this scan, or the newest; "" before the first one. BadInput: there is no such scan."""
    known = client.scans(scan)
    if scan and not known:
        raise BadInput(f"there is no scan {scan!r}; see `beamtide scan list`")
    return max(known, key=lambda state: state.version).scan.id if known else ""


def snapshot(client: Client, scan: str) -> Snapshot:
    """Ask the services. NoAnswer when one of them is restarting."""
    status = client.status(scan)
    reports = {report.card.name: report for report in client.topology()}
    known = next(iter(client.scans(scan)), None)
    rows, products = {}, client.shown(scan, client.products(scan)) if known else {}
    present = _present(status.tallies, client, scan)
    for name, pipeline in client.deployment.pipelines.items():
        tallies = [tally for tally in present if tally.pipeline == name]
        retrying = _number(reports, f"buffer.{name}", "retrying")
        row = _row(client.gauge(name), tallies, known, _points_per_task(pipeline, known, tallies), retrying)
        rows[name] = replace(
            row,
            doubled=_number(reports, f"sorter.{name}", "repeated"),
            quality=said_by(products[name].datasets) if name in products else "",
        )
    scaler = reports.get("autoscaler")
    notes = {name: report.why for name, report in reports.items() if report.why and name != "autoscaler"}
    for name, row in rows.items():
        if not (row.queued or row.retrying):  # a heartbeat is up to two seconds old; the numbers are of now
            notes.pop(f"buffer.{name}", None)
        if row.finished:
            notes.pop(f"sorter.{name}", None)
    notes |= relaxed(reports.values())
    return Snapshot(scan, rows, scaler.why if scaler else "", notes, known.points if known else 0)


def _present(tallies: Sequence[Tally], client: Client, scan: str) -> Sequence[Tally]:
    """Return tallies without those of superseded settings of a scan; those of a pipeline without present ones stay."""
    if len({(tally.scan, tally.pipeline) for tally in tallies}) == len(tallies):
        return tallies
    now = client.settings_now(scan)
    begun = {tally.pipeline for tally in tallies if tally.settings == now.get(tally.pipeline)}
    return [tally for tally in tallies if tally.pipeline not in begun or tally.settings == now[tally.pipeline]]


def relaxed(reports: Iterable[ComponentReport]) -> dict[str, str]:
    """Return the note on components that do not sync what they acknowledge; none if all do."""
    names = ", ".join(sorted(report.card.name for report in reports if report.progress.get("relaxed")))
    return {"durability": f"relaxed in {names}: a power cut takes the last seconds (spool.durability)"} if names else {}


def _points_per_task(pipeline: PipelineConfig, known: ScanState | None, tallies: list[Tally]) -> float:
    size = pipeline.source.frames_per_task
    if pipeline.source.kind == "scan" or size == "scan":
        return float(known.points) if known else 0.0
    if known is not None and pipeline.source.kind == "submitted":  # nobody but who submits them knows how many will come
        size = "file"
    if known is None or isinstance(size, int):
        return float(size) if isinstance(size, int) else 0.0
    submitted = sum(tally.submitted for tally in tallies)
    return known.scan.shape[-1] if size == "line" else known.points / submitted if submitted else 0.0


def _number(reports: Mapping[str, ComponentReport], component: str, name: str) -> int:
    """Return a number that a component told with its last heartbeat; 0 if it told none."""
    return int(reports[component].progress.get(name, 0)) if component in reports else 0


def _row(gauge: BufferGauge, tallies: list[Tally], known: ScanState | None, per_task: float, retrying: int) -> PipelineRow:
    planned = math.ceil(known.points / per_task) if known is not None and per_task else 0  # also tasks that are still to come
    states = counted(planned, tallies, gauge.leased, retrying)
    total = sum(states.values())
    busy = max(1, gauge.workers - gauge.idle)
    rate = busy / gauge.service_time if gauge.service_time else 0.0
    waiting = gauge.ready + gauge.leased + gauge.held
    coming = gauge.arrival_rate if any(states[state] for state in OPEN) else 0.0
    return PipelineRow(
        not_asked=states["not_asked"],
        queued=states["queued"],
        running=states["running"],
        retrying=states["retrying"],
        done=states["done"],
        empty=states["empty"],
        abandoned=states["abandoned"],
        total=total,
        workers=gauge.workers,
        rate=per_task * (rate if waiting else coming),
        oldest=gauge.oldest_wait,
        to_go=waiting / rate if rate and waiting else 0.0,
        retried=gauge.retried,
        reasons=tuple(reason for tally in tallies for reason in tally.reasons),
    )
