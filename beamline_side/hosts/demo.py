"""The demo: a scan is simulated in real time, and processed meanwhile by all components of a site."""

import concurrent.futures
import pathlib
import shutil
import threading
from importlib import resources

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import OnProgress, ScanOutcome, files_of, follow
from beamline_side.simulation import beamline
from beamtide import clock
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import reading


def demo(folder: pathlib.Path, shape: tuple[int, int], on_progress: OnProgress) -> ScanOutcome:
    """Simulate a scan below `folder` in real time and process it meanwhile. What an earlier demo left there is removed."""
    return measure(prepare_demo(folder), shape, on_progress)


def measure(deployment: Deployment, shape: tuple[int, int], on_progress: OnProgress) -> ScanOutcome:
    """Simulate a scan of the demo's site in real time and process it meanwhile."""
    scan = Scan(id=ScanId("scan_00001"), shape=shape, axes=("scanv", "scanu"), info={"title": "Simulated P06 layout"})
    started = clock.monotonic()
    with Host(deployment) as host, Client(deployment) as client, concurrent.futures.ThreadPoolExecutor(1) as instrument:
        client.scan_announced(scan)
        client.scan_started(scan)
        interrupted = threading.Event()
        measuring = instrument.submit(beamline.simulate, deployment.site.roots.raw, scan, stopped=interrupted.is_set)
        ended = False

        def scan_is_over() -> bool:
            nonlocal ended
            if measuring.done() and not ended:
                measuring.result()
                client.scan_ended(scan.id)
                ended = True
            return ended

        try:
            last = follow(host, deployment, scan.id, on_progress, scan_is_over)
        finally:
            interrupted.set()
    return ScanOutcome(scan.id, clock.monotonic() - started, last, files_of(deployment, scan.id))


def prepare_demo(folder: pathlib.Path) -> Deployment:
    """Write the demo's site and pipeline files and empty folders below `folder`."""
    for name in ("raw", "processed", "state", "site"):
        shutil.rmtree(folder / name, ignore_errors=True)
    try:
        for name in ("raw", "processed", "site"):
            (folder / name).mkdir(parents=True)
        packaged = resources.files("beamline_side.simulation") / "demo"
        for source in packaged.iterdir():
            if source.is_file():
                (folder / "site" / source.name).write_bytes(source.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot write the demo below {folder}: {error.strerror}; choose another folder with --folder") from error
    return site.load(folder / "site" / "site.yaml")


def recovered_and_true(deployment: Deployment, scan: str) -> list[tuple[str, float, float]]:
    """Return element, recovered / true, and the uncertainty of that ratio, from the result file and the simulation."""
    measured = reading.open(scan, processed=deployment.site.roots.processed)
    truth = beamline.truth(deployment.site.roots.raw / scan)
    recovered = {element: measured[f"xrf/area/{element}"].values for element in truth}
    return beamline.compare(recovered, truth)
