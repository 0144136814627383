"""The main job on a measured scan: NanoMAX fly scan 8, 11 lines of 101 points, from files to element maps.

Task size can matter with PyMca's fast fit: its `refit` zeroes instead of refitting a parameter that is negative in fewer than
0.25 % of the spectra of one call, and its weights (weight = 1) come from the spectra of one call. So the maps are compared
with those fitted whole at the tolerance of the sums (1e-3 for elements above 1e4 counts), with one task for the whole map.
"""

import contextlib
import hashlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

import h5py
import numpy as np
import pytest
import silx.io
import silx.io.nxdata

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import follow, run_scan
from beamtide.client.client import Client
from beamtide.client.snapshot import Snapshot
from beamtide.config.models import Deployment
from beamtide.results import layout, reading
from tests.system.deployments import COLUMNS, REAL_SCAN, ROWS, kill, pids, real_site, workers_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]


def maps_of(deployment: Deployment) -> dict[str, np.ndarray]:
    found = reading.open(REAL_SCAN.id, processed=deployment.site.roots.processed)
    return {name.split("/")[-1]: np.asarray(found[name]).reshape(ROWS, COLUMNS) for name in found if name.startswith("xrf/area/")}


def expected_maps(test_data: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(test_data / "xrf" / "expected_nanomax_fast_weight0_refit.npz", allow_pickle=False) as stored:
        return dict(zip((str(name).replace(" ", "_") for name in stored["names"]), stored["parameters"], strict=True))


def check_every_index_once(path: pathlib.Path) -> None:
    with h5py.File(path) as file:
        start, stop = (file[f"entry/process/tasks/{name}"][()] for name in ("start", "stop"))
        assert len(file["entry/holes/start"]) == 0
    covered = np.concatenate([np.arange(*pair) for pair in zip(start, stop, strict=True)])
    np.testing.assert_array_equal(np.sort(covered), np.arange(ROWS * COLUMNS))


def look_at_the_live_file(deployment: Deployment, seen: list[int]) -> None:
    """Read along as a user's script would, and note how many indexes are complete."""
    path = layout.live_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf")
    if path.exists():
        with contextlib.suppress(OSError), h5py.File(path, "r", swmr=True) as file:  # it is renamed away at the end
            complete = int(file["entry/complete"][()])
            assert np.isfinite(file["entry/data/area/Cu_K"][:complete]).all()
            seen.append(complete)


def check_with_viewers(path: pathlib.Path, test_data: pathlib.Path) -> None:
    """The NeXus validator finds no error, silx opens on an image of an element, settings and versions are inside."""
    done = subprocess.run(
        [pathlib.Path(sys.executable).parent / "nxcheck", "-e", path], capture_output=True, text=True, check=True
    )
    assert "Total number of errors: 0" in done.stdout + done.stderr
    with silx.io.open(str(path)) as root:
        plot = silx.io.nxdata.get_default(root, validate=False)
        assert plot.is_valid
        assert plot.signal.ndim == 2
        assert plot.group.name == "/entry/maps/area/Cu_K"
    with h5py.File(path) as file:
        process = file["entry/process"]
        assert json.loads(process["settings/data"].asstr()[()])["values"]["refit"] is True
        cfg = (test_data / "xrf" / "nanomax_fit_12keV.cfg").read_bytes()
        assert process["calibration_cfg"].attrs["digest"] == hashlib.sha256(cfg).hexdigest()
        assert "PyMca5" in process["versions/data"].asstr()[()]


def test_the_maps_are_pymcas_and_the_grid_is_the_scans(tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    deployment = real_site(tmp_path, test_data, "file")
    run_scan(deployment, REAL_SCAN, lambda _: None)
    maps = maps_of(deployment)
    for name, expected in expected_maps(test_data).items():
        if expected.sum() > 1e4:
            assert maps[name].sum() == pytest.approx(expected.sum(dtype=float), rel=1e-3), name
            assert np.corrcoef(maps[name].ravel(), expected.ravel())[0, 1] > 0.9999, name
    with h5py.File(layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf")) as file:
        plot = file["entry/maps/area/Cu_K"]
        x, y = (plot[name] for name in plot.attrs["axes"][::-1])
        assert np.diff(x).mean() == pytest.approx(0.200, abs=0.001)
        assert np.diff(y).mean() == pytest.approx(2.0, abs=0.01)
        assert x.attrs["units"] == y.attrs["units"] == "um"
    check_with_viewers(layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf"), test_data)


@pytest.mark.long
def test_one_task_per_line_normalised_to_a_current_that_another_pipeline_made(
    tmp_path: pathlib.Path, test_data: pathlib.Path
) -> None:
    """Each task has a worker of its own, and waits behind a fence until i0 of its own indexes is there."""
    with h5py.File(test_data / "positions" / "nanomax_000008.h5") as file:
        current = file["entry/measurement/alba2/1"][()].reshape(ROWS, COLUMNS)
    deployment = real_site(tmp_path, test_data, "line", reference=float(current.mean()))
    outcome = run_scan(deployment, REAL_SCAN, lambda _: None)
    path = layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf")
    check_every_index_once(path)
    with h5py.File(path) as file:
        assert len(set(file["entry/process/tasks/worker"].asstr()[()])) == ROWS, "each worker takes one task"
    assert {file.suffix for file in outcome.files} == {".h5", ".tif", ".jpg"}
    found = maps_of(deployment)
    for name, expected in expected_maps(test_data).items():
        if expected.sum() > 1e4:
            undone = (found[name] * current / current.mean()).sum()
            assert undone == pytest.approx(expected.sum(dtype=float), rel=1e-3), name
            assert found[name].sum() != pytest.approx(undone, rel=1e-7), f"{name} was not normalised"


@pytest.mark.long
def test_sigkill_of_everybody_in_the_middle(tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    """Each is killed once a certain part of the scan is done; the scan completes, every point exactly once."""
    deployment = real_site(tmp_path, test_data, 11)
    victims: list[tuple[float, Callable[[Host], list[int]]]] = [
        (0.05, lambda host: [pids(host)["buffer.xrf"]]),
        (0.15, lambda _: workers_of(deployment.file, "xrf")[:1]),
        (0.25, lambda host: [pids(host)["sorter.xrf"]]),
        (0.35, lambda host: [pids(host)["topology"]]),
        (0.4, lambda host: [pids(host)["sink"]]),
        (0.5, lambda host: [pids(host)["distributor"]]),
        (0.55, lambda host: [pids(host)["metadata"]]),
        (0.6, lambda host: [pids(host)["autoscaler"]]),
        (0.65, lambda host: [pids(host)["writer"]]),
    ]
    killed, busiest, seen_live = 0, 0, list[int]()
    with Host(deployment) as host, Client(deployment) as client:
        client.scan_started(REAL_SCAN)
        client.scan_ended(REAL_SCAN.id)

        def murder(seen: Snapshot) -> None:
            nonlocal killed, busiest
            xrf = seen.pipelines["xrf"]
            busiest = max(busiest, xrf.workers)
            if victims:  # the last one is the writer, which begins a new live file
                look_at_the_live_file(deployment, seen_live)
            while victims and xrf.done >= victims[0][0] * xrf.total > 0 and (found := victims[0][1](host)):
                kill(found[0])
                victims.pop(0)
                killed += 1

        follow(host, deployment, REAL_SCAN.id, murder, lambda: True)
    assert killed == 9, "the scan was over before everybody was killed"
    assert busiest >= 2, "there were not two workers at once"
    assert seen_live == sorted(seen_live), "a reader saw rows vanish"
    assert seen_live[-1] > 0, "nobody could read along"
    check_every_index_once(layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf"))
    check_every_index_once(layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "encoders"))
    for name, expected in expected_maps(test_data).items():
        if expected.sum() > 3e5:
            assert maps_of(deployment)[name].sum() == pytest.approx(expected.sum(dtype=float), rel=5e-3), name
