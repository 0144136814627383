"""Sites for the system tests: the measured NanoMAX fly scan, cut into as many tasks as a test wants."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

from beamline_side.hosts.all_in_one import Host
from beamtide import clock
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import NoAnswer
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan

ROWS, COLUMNS = 11, 101
REAL_SCAN = Scan(id=ScanId("nanomax_000008"), shape=(ROWS, COLUMNS), axes=("sy", "sx"))

SITE = """
site: nanomax
roots: {{raw: "{raw}", processed: "{folder}/processed", shared: "{shared}"}}
state: "{folder}/state"
pipelines: [encoders.yaml, xrf.yaml]
scaling: {{caps: {{jobs: {jobs}, node_hours_per_day: 100}}, tick: 0.2, idle_exit: 3}}
leases: {{ttl: 3, beat: 0.5}}
"""
ENCODERS = """
pipeline: encoders
modality: encoders
source: {{kind: files, match: "positions/nanomax_000008.h5", format: nanomax_panda, frames_per_task: {frames}}}
settings:
  axes:
    x: {{field: INENC2.VAL_Mean, units: um}}
    y: {{field: INENC3.VAL_Mean, units: um}}
  extra:
    i0: {{field: alba2/1, units: A}}
write: [hdf5, tiff, jpeg]
"""
XRF = """
pipeline: xrf
modality: xrf
source: {{kind: files, match: "xrf/nanomax_scan_000008_xspress3.hdf5", format: nanomax_xspress3, frames_per_task: {frames}}}
settings: {{detectors: [3], dead_time: false, weight: 0, refit: true{normalised}}}
inputs: {inputs}
calibration: {{cfg: nanomax_fit_12keV.cfg}}
positions: encoders
job: {{slots: 2}}
write: [hdf5, tiff, jpeg]
"""


NORMALISED = ', normalise_to: "encoders/i0", normalise_reference: {reference}'


def real_site(folder: pathlib.Path, data: pathlib.Path, frames: int | str = "line", reference: float | None = None) -> Deployment:
    """Write the site of the measured scan below `folder`, with `frames` per task; areas are times `reference` / i0 if given."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "raw": data,
        "folder": folder,
        "shared": data / "xrf",
        "jobs": 3,
        "frames": frames,
        "normalised": NORMALISED.format(reference=reference) if reference else "",
        "inputs": "[encoders/i0]" if reference else "[]",
    }
    for name, text in (("site", SITE), ("encoders", ENCODERS), ("xrf", XRF)):
        (folder / f"{name}.yaml").write_text(text.format(**values))
    return site.load(folder / "site.yaml")


def edit(file: pathlib.Path, old: str, new: str) -> None:
    """Replace the one place where `old` stands."""
    text = file.read_text()
    assert text.count(old) == 1, f"{old!r} in {file.name}"
    file.write_text(text.replace(old, new))


def until(host: Host, true: Callable[[], Any], seconds: float = 30) -> Any:
    """Keep the services alive until something is true, and return it; AssertionError says what they are doing."""
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        host.tend()
        with contextlib.suppress(NoAnswer):
            if found := true():
                return found
        clock.pause(0.05)
    raise AssertionError(f"it never came; {pids(host)}")


def workers_of(site_file: pathlib.Path, pipeline: str) -> list[int]:
    """Return the processes that hold or wait for a task of this pipeline: the worker processes of its jobs."""
    jobs = {pid for pid, words in _processes().items() if words[-1:] and _is_job(words, site_file, pipeline)}
    return [pid for pid in jobs if _parent(pid) in jobs]


def processes_of(site_file: pathlib.Path) -> list[int]:
    """Return all processes that were started for a site."""
    return [pid for pid, words in _processes().items() if str(site_file) in words]


def pids(host: Host) -> dict[str, int]:
    """Return the process of each component."""
    return {name: its.process.pid for name, its in host._processes.items()}


def kill(pid: int) -> None:
    """SIGKILL, without a chance to clean up."""
    os.kill(pid, signal.SIGKILL)


def _is_job(words: list[str], site_file: pathlib.Path, pipeline: str) -> bool:
    return "work" in words and str(site_file) in words and pipeline in words


def _processes() -> dict[int, list[str]]:
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_text().rstrip("\0").split("\0")
            except OSError:  # it ended meanwhile
                continue
    return found


def _parent(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
