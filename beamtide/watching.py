"""What a person wants to see while a scan runs: one row per pipeline, put together from the services' own numbers."""

from dataclasses import asdict, dataclass
from typing import Any

from beamtide.client import Client
from beamtide.messages.scaling import BufferGauge
from beamtide.messages.tasks import Tally


@dataclass(frozen=True, slots=True)
class Row:
    """One pipeline. Times in seconds; `rate` in points per second; `total` is 0 while nobody knows it."""

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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a scan. `done` and `total` count tasks whose verdict is known, and all; `notes` say why nothing moves."""

    scan: str
    pipelines: dict[str, Row]
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
    rows = {}
    for name in client.deployment.pipelines:
        tallies = [tally for tally in status.tallies if tally.pipeline == name]
        rows[name] = _row(client.gauge(name), tallies)
    scaler = reports.get("autoscaler")
    notes = {name: report.why for name, report in reports.items() if report.why and name != "autoscaler"}
    scans = client.scans(scan)
    return Snapshot(scan, rows, scaler.why if scaler else "", notes, scans[0].points if scans else 0)


def _row(gauge: BufferGauge, tallies: list[Tally]) -> Row:
    submitted = sum(tally.submitted for tally in tallies)
    lost = sum(tally.abandoned for tally in tallies)
    done = lost + sum(tally.results + tally.empty for tally in tallies)
    busy = max(1, gauge.workers - gauge.idle)
    rate = busy / gauge.service_time if gauge.service_time else 0.0
    waiting = gauge.ready + gauge.leased + gauge.held
    return Row(
        queued=gauge.ready + gauge.held,
        leased=gauge.leased,
        done=done,
        total=submitted,
        workers=gauge.workers,
        rate=rate if waiting else 0.0,
        oldest=gauge.oldest_wait,
        to_go=waiting / rate if rate and waiting else 0.0,
        lost=lost,
        retried=gauge.retried,
    )
