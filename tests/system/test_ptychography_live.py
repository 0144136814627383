"""Ptychography while the scan is measured: files come one after the other, and the task is at work long before the last."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import run_scan
from beamtide.client.client import Client, newest_preview
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, NoAnswer
from beamtide.messages.previews import Preview
from beamtide.pump import Caller
from beamtide.results import reading
from cluster_side.modalities.ptychography.spec import LIVE
from tests.ptycho_scans import Truth, simulate
from tests.system import test_ptychography_scan as finished
from tests.system.deployments import until
from tests.system.test_ptychography_scan import SCAN, SIDE
from tests.unit.test_ptycho_engines import against_truth

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(170)]
PER_FILE, BEGIN = 16, 24
"""Frames of an Eiger file, and those that the task begins with: two files, three lines."""


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate(side=SIDE)


def deployment_for(folder: pathlib.Path, truth: Truth, ranks: int) -> Deployment:
    """The site of the finished scan, whose task begins early; its files wait in a folder aside."""
    deployment = finished.deployment_for(folder, truth, PER_FILE)
    (folder / "raw" / SCAN.id).rename(folder / "measured")
    file = folder / "ptycho.yaml"
    content = yaml.safe_load(file.read_text())
    content["source"] |= {"frames_per_task": "scan", "begin_with": BEGIN, "settle": 1.0}
    content["settings"] |= {"recipe": "RAAR(0.85) 25 -> LSQML 10", "every": 5}
    content["job"] = {"ranks": ranks, "tasks_per_job": 1}
    file.write_text(yaml.safe_dump(content))
    return site.load(deployment.file)


@dataclass
class Beamline:
    """A site that runs, and the files that are still to come."""

    deployment: Deployment
    host: Host
    client: Client
    caller: Caller

    def measure(self, lines: int, files: int) -> None:
        """Let the encoders write so many lines, and the detector so many files, in all."""
        for device, wanted in (("pilctriggergenerator_04", lines), ("eiger_4m_01", files)):
            there = self.deployment.site.roots.raw / SCAN.id / device
            there.mkdir(parents=True, exist_ok=True)
            for path in sorted((self.deployment.file.parent / "measured" / device).iterdir())[:wanted]:
                if not (there / path.name).exists():
                    shutil.copy(path, there / path.name)

    def look(self) -> tuple[Preview, Mapping[str, Any]] | None:
        """Return what is shown, if anything is."""
        with contextlib.suppress(NoAnswer):
            shown, arrays = newest_preview(self.caller, self.deployment, SCAN.id, "ptycho")
            return (shown, arrays) if arrays else None
        return None

    def complete(self, pipeline: str) -> int:
        """Return how far the results of a pipeline are there."""
        return max((one.complete for one in self.client.products(SCAN.id) if one.product.pipeline == pipeline), default=0)

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait until something is true, and return it."""
        return until(self.host, true, 90)


@contextlib.contextmanager
def beamline(deployment: Deployment) -> Iterator[Beamline]:
    with Host(deployment) as host, Client(deployment) as client, Caller() as caller:
        yield Beamline(deployment, host, client, caller)


def objects(deployment: Deployment) -> dict[str, np.ndarray]:
    kept = reading.open(SCAN.id, processed=deployment.site.roots.processed)
    return {name.removeprefix("ptycho/"): np.asarray(kept[name]) for name in kept if name.startswith("ptycho/")}


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_is_at_work_before_the_last_frame_and_finds_the_same(ranks: int, truth: Truth, tmp_path: pathlib.Path) -> None:
    if ranks > 1:
        pytest.importorskip("mpi4py", reason="no MPI: pip install 'beamtide[mpi]'")
    deployment = deployment_for(tmp_path / "live", truth, ranks)
    with beamline(deployment) as line:
        line.measure(lines=2, files=2)
        line.client.scan_started(SCAN)
        line.until(
            lambda: any(one.product.pipeline == "encoders" and one.complete == 16 for one in line.client.products(SCAN.id))
        )
        assert line.client.gauge("ptycho").leased == 0, "it began without the positions that it needs"
        line.measure(lines=4, files=2)
        first, arrays = line.until(line.look)
        assert first.progress <= 0.5
        line.measure(lines=SIDE, files=4)
        larger = line.until(lambda: (shown := line.look()) and shown[1]["object"].size > arrays["object"].size and shown)
        assert larger[0].progress <= 0.5
        line.client.scan_ended(SCAN.id)
        line.until(lambda: line.complete("ptycho") == 64)
        assert line.client.gauge("ptycho").retried == 0
        line.until(lambda: "ptycho/object" in set(_names(deployment)))
    offline = deployment_for(tmp_path / "offline", truth, ranks)
    (tmp_path / "offline" / "measured").rename(tmp_path / "offline" / "raw" / SCAN.id)
    run_scan(offline, SCAN, lambda _: None)
    found, expected = objects(deployment), objects(offline)
    shown_last = {name for name in found if name.startswith(f"{LIVE}/")}
    assert {f"{LIVE}/verdict", f"{LIVE}/explained"} <= shown_last, "what is thought of the object that was shown last, stays"
    assert found.keys() - shown_last == expected.keys()
    for axis in "xy":
        np.testing.assert_array_equal(found[f"position_{axis}_used"], expected[f"position_{axis}_used"])
    assert found["object"].shape == expected["object"].shape
    # FFTW plans by measuring, so processes round differently, and the first waves of RAAR give noise its phase
    np.testing.assert_allclose(found["error"], expected["error"], rtol=0.03)
    assert against_truth(truth, found).crossing > 0.35


def test_a_scan_that_ends_early_leaves_nothing_waiting(truth: Truth, tmp_path: pathlib.Path) -> None:
    """40 of 64 points, and of those a file that cannot be read: what is there is reconstructed, the rest is no number."""
    deployment = deployment_for(tmp_path, truth, 1)
    with beamline(deployment) as line:
        line.measure(lines=5, files=2)
        line.client.scan_started(SCAN)
        line.until(line.look)
        bad = deployment.site.roots.raw / SCAN.id / "eiger_4m_01" / f"{SCAN.id}_data_000003.h5"
        bad.write_bytes(b"no file of HDF5")
        line.client.scan_ended(SCAN.id, points=40)
        line.until(lambda: "ptycho/object" in set(_names(deployment)))
    found = objects(deployment)
    used = np.stack([found["position_y_used"], found["position_x_used"]], axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(used[:32], (truth.measured * truth.pixel)[:32], atol=1e-12)
    assert np.isnan(used[32:]).all()


def _names(deployment: Deployment) -> list[str]:
    with contextlib.suppress(BadInput):  # nothing is written yet
        return list(reading.open(SCAN.id, processed=deployment.site.roots.processed))
    return []
