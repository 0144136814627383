"""What a person wants to see while a scan runs: one row per pipeline, put together from the services' own numbers."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from beamtide.client.client import Client
from beamtide.config.models import PipelineConfig
from beamtide.messages.metadata import ScanState
from beamtide.messages.results import ProductState
from beamtide.messages.scaling import BufferGauge
from beamtide.messages.tasks import Tally
from beamtide.messages.topology import ComponentReport
from beamtide.results.verdict import said_by


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """One pipeline. Times in seconds; `total` is 0 while nobody knows it.

    `rate` in points per second: what the workers can do while something waits, else what comes in.
    """

    queued: int
    leased: int
    done: int
    total: int
    workers: int
    rate: float
    oldest: float
    to_go: float
    lost: int
    retried: int
    doubled: int = 0
    """Results that the sorter got twice and kept once."""
    reasons: tuple[str, ...] = ()
    """Why tasks were lost, the latest ones."""
    quality: str = ""
    """What a reconstruction says of itself; "" for what says nothing."""

    @property
    def finished(self) -> bool:
        """Whether every task has its verdict."""
        return self.done >= self.total > 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a scan. `done` and `total` count tasks whose verdict is known, and all; `notes` say why nothing moves."""

    scan: str
    pipelines: dict[str, PipelineRow]
    autoscaler: str
    notes: dict[str, str]
    points: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def snapshot(client: Client, scan: str) -> Snapshot:
    """Ask the services. NoAnswer when one of them is just being started again."""
    status = client.status(scan)
    reports = {report.card.name: report for report in client.topology()}
    known = next(iter(client.scans(scan)), None)
    rows, products = {}, client.products(scan) if known else ()
    for name, pipeline in client.deployment.pipelines.items():
        tallies = [tally for tally in status.tallies if tally.pipeline == name]
        row = _row(client.gauge(name), tallies, known, _points_per_task(pipeline, known, tallies))
        sorter = reports.get(f"sorter.{name}")
        doubled = int(sorter.progress.get("repeated", 0)) if sorter else 0
        rows[name] = replace(row, doubled=doubled, quality=_quality(products, name))
    scaler = reports.get("autoscaler")
    notes = {name: report.why for name, report in reports.items() if report.why and name != "autoscaler"}
    for name, row in rows.items():
        if not row.queued:  # a heartbeat is up to two seconds old; the numbers are of now
            notes.pop(f"buffer.{name}", None)
        if row.finished:
            notes.pop(f"sorter.{name}", None)
    notes |= relaxed(reports.values())
    return Snapshot(scan, rows, scaler.why if scaler else "", notes, known.points if known else 0)


def relaxed(reports: Iterable[ComponentReport]) -> dict[str, str]:
    """Return the note on components that do not sync what they acknowledge; none if all do."""
    names = ", ".join(sorted(report.card.name for report in reports if report.progress.get("relaxed")))
    return {"durability": f"relaxed in {names}: a power cut takes the last seconds (spool.durability)"} if names else {}


def _quality(products: Iterable[ProductState], pipeline: str) -> str:
    """Return what the newest product of a pipeline says of itself."""
    mine = [state for state in products if state.product.pipeline == pipeline]
    return said_by(max(mine, key=lambda state: state.version).datasets) if mine else ""


def _points_per_task(pipeline: PipelineConfig, known: ScanState | None, tallies: list[Tally]) -> float:
    size = pipeline.source.frames_per_task
    if pipeline.source.kind == "scan" or size == "scan":
        return float(known.points) if known else 0.0
    if known is None or isinstance(size, int):
        return float(size) if isinstance(size, int) else 0.0
    submitted = sum(tally.submitted for tally in tallies)
    return known.scan.shape[-1] if size == "line" else known.points / submitted if submitted else 0.0


def _row(gauge: BufferGauge, tallies: list[Tally], known: ScanState | None, per_task: float) -> PipelineRow:
    total = sum(tally.submitted for tally in tallies)
    if known is not None and per_task:  # also those that are still to come
        total = max(total, math.ceil(known.points / per_task))
    lost = sum(tally.abandoned for tally in tallies)
    done = lost + sum(tally.results + tally.empty for tally in tallies)
    busy = max(1, gauge.workers - gauge.idle)
    rate = busy / gauge.service_time if gauge.service_time else 0.0
    waiting = gauge.ready + gauge.leased + gauge.held
    return PipelineRow(
        queued=gauge.ready + gauge.held,
        leased=gauge.leased,
        done=done,
        total=total,
        workers=gauge.workers,
        rate=per_task * (rate if waiting else gauge.arrival_rate if done < total else 0.0),
        oldest=gauge.oldest_wait,
        to_go=waiting / rate if rate and waiting else 0.0,
        lost=lost,
        retried=gauge.retried,
        reasons=tuple(reason for tally in tallies for reason in tally.reasons),
    )
