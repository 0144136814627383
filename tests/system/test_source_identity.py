"""A corrected source computes anew: what `run` makes of a scan whose pipeline file was wrong, and of files that came late."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

import beamtide
from beamline_side.hosts.one_scan import ScanOutcome, run_scan
from beamline_side.writers.written import record_of
from beamtide.client.snapshot import Snapshot
from beamtide.config import site
from beamtide.errors import BadInput
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import reading
from tests.builders.sites import write_site

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]
SCAN = Scan(id=ScanId("scan_1"), shape=(4, 5))
ROWS = np.arange(20.0).reshape(SCAN.shape)


def line(folder: pathlib.Path, number: int) -> None:
    """Write one line of the scan: the right positions, and others that look like them."""
    path = folder / "raw" / "scan_1" / f"line_{number}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["right"], file["wrong"] = ROWS[number], ROWS[number] + 1000
        file["y"] = np.full(SCAN.shape[1], float(number))


def asked(folder: pathlib.Path, x: str, **source: Any) -> ScanOutcome:
    """Run the scan with x from this dataset."""
    options = {"x": x, "y": "y"}
    encoders = {
        "source": {"match": "{scan}/line_*.h5", "format": "hdf5", "options": options, "settle": 0.1} | source,
        "settings": {"axes": {"x": {"field": "x"}, "y": {"field": "y"}}},
        "write": ["hdf5", "tiff"],
    }
    deployment = write_site(folder, {"encoders": encoders}, jobs=2)
    return run_scan(site.load(deployment.file), SCAN, lambda _: None)


def x_of(folder: pathlib.Path, name: str = "encoders") -> Any:
    return beamtide.open("scan_1", processed=folder / "processed").rows(f"{name}/x").values


def stems(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in (folder / "processed/beamtide/scan_1").glob("*.h5"))


def tasks_of(seen: Snapshot) -> int:
    return seen.pipelines["encoders"].total


def test_corrected_options_compute_anew_and_nothing_is_lost(tmp_path: pathlib.Path) -> None:
    for number in range(4):
        line(tmp_path, number)
    wrong = asked(tmp_path, "wrong")
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel() + 1000)
    assert tasks_of(wrong.last) == 4
    right = asked(tmp_path, "right")
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel())
    assert tasks_of(right.last) == 4, "only the product that is meant is counted"
    (odd,) = (name.removesuffix(".h5") for name in stems(tmp_path) if name != "encoders.h5")
    np.testing.assert_array_equal(x_of(tmp_path, odd), ROWS.ravel() + 1000)
    maps = {path.name for path in (tmp_path / "processed/beamtide/scan_1/maps").glob("*.tif")}
    ours = {name.removeprefix("encoders") for name in maps if not name.startswith(odd)}
    assert ours == {name.removeprefix(odd) for name in maps if name.startswith(odd)} >= {"_x.tif", "_y.tif"}
    folder = tmp_path / "processed/beamtide/scan_1"
    for stem in ("encoders", odd):
        record = record_of(folder / stem)
        assert record is not None
        assert record.missing(folder, ("hdf5", "tiff")) == ()
    with h5py.File(folder / "encoders.h5") as file:
        assert '"x": "right"' in file["entry/process/settings/data"].asstr()[()]
    back = asked(tmp_path, "wrong")
    assert back.seconds < 60
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel() + 1000)
    assert len(stems(tmp_path)) == 2
    other = asked(tmp_path, "right", frames_per_task=7, settle=0.2)
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel())
    assert tasks_of(other.last) == 4, "how tasks are cut is no part of the identity: nothing is computed"
    assert len(stems(tmp_path)) == 2
    assert reading.verify(folder / "encoders.h5") == []


def test_holes_are_filled_when_the_files_come(tmp_path: pathlib.Path) -> None:
    line(tmp_path, 0)
    line(tmp_path, 2)
    first = asked(tmp_path, "right", first=0)
    assert np.isnan(x_of(tmp_path)[5:10]).all()
    assert np.isnan(x_of(tmp_path)[15:]).all()
    assert len(first.holes) == 1
    assert "of 20 indexes have no result" in first.holes[0]
    line(tmp_path, 3)
    second = asked(tmp_path, "right", first=0)
    np.testing.assert_array_equal(x_of(tmp_path)[10:], ROWS.ravel()[10:])
    assert "5 of 20 indexes have no result" in second.holes[0]
    still = asked(tmp_path, "right", first=0)
    assert still.holes == second.holes
    line(tmp_path, 1)
    last = asked(tmp_path, "right", first=0)
    assert last.holes == ()
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel())
    assert stems(tmp_path) == ["encoders.h5"]


def test_what_is_started_over_is_computed_and_the_old_stays(tmp_path: pathlib.Path) -> None:
    for number in range(4):
        line(tmp_path, number)
    asked(tmp_path, "right")
    with h5py.File(tmp_path / "raw/scan_1/line_2.h5", "a") as file:
        file["right"][...] += 0.5
    asked(tmp_path, "right")
    np.testing.assert_array_equal(x_of(tmp_path), ROWS.ravel())
    deployment = site.load(tmp_path / "site.yaml")
    for _ in range(2):
        run_scan(deployment, SCAN, lambda _: None, fresh=True)
        assert x_of(tmp_path)[10] == 10.5
    assert len(stems(tmp_path)) == 3
    asked(tmp_path, "right")
    assert x_of(tmp_path)[10] == 10.5, "what was started over stays so"
    with pytest.raises(BadInput, match="no dataset"):
        x_of(tmp_path, "encoders.00000000")
