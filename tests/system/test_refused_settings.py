"""Settings that a modality refuses end a scan: every task is abandoned with the sentence, at once, and no job is tried again."""

import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import follow
from beamtide import clock
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(120)]
SITE = """
site: case
roots: {raw: raw, processed: processed}
state: state
pipelines: [xrd.yaml]
scaling: {caps: {jobs: 1, node_hours_per_day: 24}, idle_exit: 1}
"""
PIPELINE = """
pipeline: xrd
modality: xrd
source: {match: "{scan}/frames.h5", format: hdf5, options: {frames: /entry/data/data}, frames_per_task: 1}
calibration: {poni: cal.poni}
settings: {points: 10, split: "no"}
"""
PONI = """
poni_version: 2
Detector: Detector
Detector_config: {"pixel1": 7.5e-05, "pixel2": 7.5e-05, "max_shape": [20, 18]}
Distance: 0.2
Poni1: 0.0
Poni2: 0.0
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""
SENTENCE = "does not say where pixel 0 lies"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "raw/scan_1").mkdir(parents=True)
    with h5py.File(tmp_path / "raw/scan_1/frames.h5", "w") as file:
        file["entry/data/data"] = np.full((6, 20, 18), 10, "u4")
    for name, text in {"site.yaml": SITE, "xrd.yaml": PIPELINE, "cal.poni": PONI}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_run_refuses_before_anything_starts(folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "beamtide", "run", "scan_1", "--shape", "1x6", "-c", str(folder / "site.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert SENTENCE in done.stderr
    assert "orientation" in done.stderr
    assert not (folder / "state").exists()


def test_where_nobody_checked_every_task_ends_with_the_sentence(folder: pathlib.Path) -> None:
    """As with services that run for days, and a pipeline file that was edited meanwhile: nothing is tried twice."""
    deployment, scan = site.load(folder / "site.yaml"), ScanId("scan_1")
    began = clock.monotonic()
    with Host(deployment) as host, Client(deployment) as client:
        client.scan_started(Scan(id=scan, shape=(1, 6)))
        client.scan_ended(scan)
        follow(host, deployment, scan, lambda _: None, lambda: clock.monotonic() > began + 60 or _all_lost(client, scan))
        letters = client.dead_letters()
        abandoned = sum(tally.abandoned for tally in client.status(scan).tallies)
    assert abandoned == 6
    assert len(letters) == 6
    for letter in letters:
        assert SENTENCE in letter.reason
        assert letter.attempts == 1


def _all_lost(client: Client, scan: ScanId) -> bool:
    return sum(tally.abandoned for tally in client.status(scan).tallies) == 6
