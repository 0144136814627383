"""Scans as the metadata server tells them."""

import math

from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan, ScanState


def make_state(
    phase: str = "running", points: int = -1, version: int = 1, *, scan: Scan | None = None, **more: float
) -> ScanState:
    """Return what is known of a scan (-1: as many points as planned); `more` are other fields of `ScanState`."""
    scan = scan or make_scan()
    return ScanState(scan=scan, phase=phase, points=math.prod(scan.shape) if points < 0 else points, version=version, **more)


def make_scan(name: str = "s", shape: tuple[int, ...] = (4, 6), **more: object) -> Scan:
    """Return a scan; `more` are other fields of `Scan`."""
    return Scan(id=ScanId(name), shape=shape, **more)  # type: ignore[arg-type]
