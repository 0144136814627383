"""Datasets of one pipeline in another, on a measured scan: the whole scan as source, and what a new axis map computes again."""

import pathlib

import h5py
import numpy as np
import pytest

from beamline_side.hosts.one_scan import run_scan
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.results import layout, reading
from tests.system.deployments import COLUMNS, REAL_SCAN, ROWS

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(400)]

SITE = """
site: nanomax
roots: {{raw: "{raw}", processed: "{folder}/processed"}}
state: "{folder}/state"
pipelines: [encoders.yaml, counters.yaml, xbic.yaml, positions.yaml]
scaling: {{caps: {{jobs: 3, node_hours_per_day: 24}}, tick: 0.2, idle_exit: 3}}
"""
SOURCE = "source: {match: positions/nanomax_000008.h5, format: nanomax_panda, frames_per_task: %s}"
ENCODERS = """
pipeline: encoders
modality: encoders
{source}
settings:
  axes:
    x: {{field: INENC2.VAL_Mean, offset: {offset}}}
    y: {{field: INENC3.VAL_Mean}}
  extra:
    lock_in_x: {{field: alba2/1, units: A}}
    lock_in_y: {{field: alba2/2, units: A}}
"""
COUNTERS = """
pipeline: counters
modality: counters
{source}
settings: {{counters: {{i0: {{field: alba2/3, units: nA, gain: 1e9, dark: 0}}}}}}
positions: encoders
"""
XBIC = """
pipeline: xbic
modality: xbic
source: {kind: scan}
inputs: [encoders/lock_in_x, encoders/lock_in_y, counters/i0]
positions: encoders
settings:
  {units: nA, x: encoders/lock_in_x, y: encoders/lock_in_y, dark: [0, 0], sensitivity: 1, full_scale: 1, preamp_gain: 1,
   chopper_factor: 1, phase: median, normalise_to: counters/i0, normalise_reference: 1}
"""

POSITIONS = """
pipeline: positions
modality: positions
source: {kind: scan}
inputs: [encoders/x, encoders/y, counters/i0]
settings: {map: {step: [0.2, 2.0], datasets: {i0: counters/i0}, fill: true}}
"""


def written(folder: pathlib.Path, data: pathlib.Path, offset: float, frames: int | str = "line") -> Deployment:
    source = SOURCE % frames
    (folder / "site.yaml").write_text(SITE.format(raw=data, folder=folder))
    (folder / "encoders.yaml").write_text(ENCODERS.format(source=source, offset=offset))
    (folder / "counters.yaml").write_text(COUNTERS.format(source=source))
    (folder / "xbic.yaml").write_text(XBIC)
    (folder / "positions.yaml").write_text(POSITIONS)
    return site.load(folder / "site.yaml")


def x_axis(path: pathlib.Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[f"entry/maps/{name}/x"])


def test_the_scan_as_source_and_a_new_axis_map(tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    deployment = written(tmp_path, test_data, 0.0)
    run_scan(deployment, REAL_SCAN, lambda _: None)
    found = reading.open(REAL_SCAN.id, processed=deployment.site.roots.processed)
    x, y, i0 = (np.asarray(found[name]) for name in ("encoders/lock_in_x", "encoders/lock_in_y", "counters/i0"))
    z = 1e9 * (x + 1j * y)
    direction = np.angle(np.sum(z * np.abs(z)))
    strong = z[np.abs(z) >= np.median(np.abs(z))]
    phase = direction + np.median(np.angle(strong * np.exp(-1j * direction)))
    np.testing.assert_allclose(np.asarray(found["xbic/signal"]), (z * np.exp(-1j * phase)).real, rtol=1e-9)
    normalised = np.asarray(found["xbic/normalised"])
    np.testing.assert_allclose(normalised[i0 > 0], ((z * np.exp(-1j * phase)).real / i0)[i0 > 0], rtol=1e-9)
    folder, first = deployment.site.roots.processed, site.settings_of(deployment)
    counters = layout.result_file(folder, REAL_SCAN.id, "counters")
    before = x_axis(counters, "i0")
    with h5py.File(layout.result_file(folder, REAL_SCAN.id, "xbic")) as file:
        assert file["entry/maps/signal/data"].shape == (ROWS, COLUMNS)
        assert len(file["entry/process/tasks/worker"]) == 1, "one task for the whole scan"
    with h5py.File(layout.result_file(folder, REAL_SCAN.id, "positions")) as file:
        drawn = file["entry/images/grid/i0"]
        x_cells, y_cells = drawn["grid_x"][()], drawn["grid_y"][()]
        assert drawn["data"].shape == (len(y_cells), len(x_cells)) == (ROWS, COLUMNS)
        np.testing.assert_allclose(np.diff(x_cells), 0.2)
        assert drawn["data"][()].mean() == pytest.approx(i0.mean(), rel=0.01)
        assert set(np.unique(file["entry/data/grid/filled"])) <= {0, 1}
        assert file["entry/data/grid/i0"].attrs["units"] == "nA", "the unit of what was drawn"
        assert "spectra" not in file["entry"], "the axes of the map are no spectra"
        assert np.count_nonzero(file["entry/data/flags/position"]) < 0.02 * ROWS * COLUMNS

    again = written(tmp_path, test_data, 100.0)
    second = site.settings_of(again)
    assert {name for name in first if first[name] != second[name]} == {"encoders", "xbic", "positions"}
    run_scan(again, REAL_SCAN, lambda _: None)
    np.testing.assert_allclose(x_axis(counters, "i0"), before + 100.0, err_msg="the maps do not lie on the new positions")
    assert not layout.result_file(folder, REAL_SCAN.id, "counters", second["counters"]).exists(), "counters were computed again"
    np.testing.assert_allclose(x_axis(layout.result_file(folder, REAL_SCAN.id, "xbic"), "signal"), before + 100.0)
    assert layout.result_file(folder, REAL_SCAN.id, "xbic", first["xbic"]).exists(), "what was superseded lies beside it"


def test_the_cut_into_tasks_changes_nothing(tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    maps = []
    for frames in (ROWS * COLUMNS, 159):  # 1 and 7 tasks; the kernels themselves are tested with 50
        folder = tmp_path / str(frames)
        folder.mkdir()
        deployment = written(folder, test_data, 0.0, frames)
        run_scan(deployment, REAL_SCAN, lambda _: None)
        found = reading.open(REAL_SCAN.id, processed=deployment.site.roots.processed)
        maps.append({name: np.asarray(found[name]) for name in found if np.asarray(found[name]).size == ROWS * COLUMNS})
    for name, expected in maps[0].items():
        for other in maps[1:]:
            np.testing.assert_array_equal(other[name], expected)
    assert {"xbic/signal", "encoders/x", "counters/i0"} <= maps[0].keys()
