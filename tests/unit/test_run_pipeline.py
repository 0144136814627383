"""A whole pipeline in one process gives what the kernels compute, says what is wrong, and leaves nothing behind."""

import gc
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from beamtide import testing
from beamtide.errors import BadInput

SETTINGS = {"counters": {"signal": {"field": "signal", "units": "counts", "gain": 2, "dark": 1}}}
SURVEY = {
    "pipeline": "survey",
    "modality": "counters",
    "source": {"match": "{scan}/*.h5", "format": "hdf5", "options": {"signal": "/signal"}},
    "settings": SETTINGS,
}
RATIO = {
    "pipeline": "ratio",
    "modality": "counters",
    "source": {"kind": "scan"},
    "inputs": ["survey/signal"],
    "settings": {"counters": {"twice": {"field": "survey/signal", "units": "counts", "gain": 2, "dark": 0}}},
}


def measured(folder: pathlib.Path, scan: str, *lines: int, columns: int = 4) -> np.ndarray:
    """One file a line; return all values, NaN for lines without a file."""
    values = np.random.default_rng(len(scan)).normal(50, 9, (max(lines) + 1, columns))
    (folder / scan).mkdir(parents=True)
    for number in range(max(lines) + 1):
        if number in lines:
            with h5py.File(folder / scan / f"{number:03d}.h5", "w") as file:
                file["signal"] = values[number]
        else:
            values[number] = np.nan
    return values


def test_the_results_are_those_of_the_kernel_and_a_lost_file_is_a_hole(tmp_path: pathlib.Path) -> None:
    values = measured(tmp_path / "raw", "scan_1", 0, 2)
    results = testing.run_pipeline(SURVEY, "scan_1", raw=tmp_path / "raw", shape=(3, 4))
    np.testing.assert_allclose(results["survey/signal"].values, (values - 1) * 2)
    assert results["survey/signal"].units == "counts"
    with h5py.File(results.files["survey"]) as root:
        assert root["entry/holes/reason"].asstr()[()].tolist() == ["the file scan_1/001.h5 never came"]
        assert (root["entry/holes/start"][()].tolist(), root["entry/holes/stop"][()].tolist()) == ([4], [8])
        assert root["entry/process/tasks/job"].asstr()[0] == "in-process"


def test_pipelines_wait_for_each_other_as_at_a_beamline(tmp_path: pathlib.Path) -> None:
    values = measured(tmp_path / "raw", "scan_1", 0, 1, 2)
    results = testing.run_pipeline([RATIO, SURVEY], "scan_1", raw=tmp_path / "raw", shape=(3, 4))
    np.testing.assert_allclose(results.rows("ratio/twice").values, ((values - 1) * 4).ravel())


def test_pipeline_files_and_scans_that_are_stitched(tmp_path: pathlib.Path) -> None:
    first, second = measured(tmp_path / "raw", "a", 0, 1), measured(tmp_path / "raw", "bb", 0, 1)
    (tmp_path / "survey.yaml").write_text(yaml.safe_dump(SURVEY))
    results = testing.run_pipeline(tmp_path / "survey.yaml", "a+bb", raw=tmp_path / "raw", shape=(4, 4), folder=tmp_path / "out")
    np.testing.assert_allclose(results["survey/signal"].values, (np.concatenate([first, second]) - 1) * 2)
    assert results.files["survey"] == tmp_path / "out" / "processed" / "beamtide" / "a+bb" / "survey.h5"


def test_what_is_wrong_with_a_pipeline_is_said_as_check_does(tmp_path: pathlib.Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(BadInput, match=r"pipeline survey: settings of counters: counters\.signal\.gain: "):
        testing.run_pipeline(
            SURVEY | {"settings": {"counters": {"signal": {"field": "signal", "units": "counts", "gain": "much"}}}},
            "scan_1",
            raw=tmp_path / "raw",
            shape=(3, 4),
        )
    with pytest.raises(BadInput, match="'zarr' is not among the writers"):
        testing.run_pipeline(SURVEY | {"write": ["zarr"]}, "scan_1", raw=tmp_path / "raw", shape=(3, 4))
    with pytest.raises(BadInput, match="add --shape"):
        testing.run_pipeline(SURVEY, "scan_1", raw=tmp_path / "raw")


def test_what_a_kernel_or_a_writer_raises_is_raised_here(tmp_path: pathlib.Path) -> None:
    measured(tmp_path / "raw", "scan_1", 0, 1)
    nowhere = {"counters": {"signal": {"field": "sgnal", "units": "counts", "dark": 0}}}
    with pytest.raises(BadInput, match="sgnal"):
        testing.run_pipeline(SURVEY | {"settings": nowhere}, "scan_1", raw=tmp_path / "raw", shape=(2, 4))
    with pytest.raises(BadInput, match="survey of scan_1 cannot be written as cxi: write: cxi is for reconstructions"):
        testing.run_pipeline(SURVEY | {"write": ["hdf5", "cxi"]}, "scan_1", raw=tmp_path / "raw", shape=(2, 4))


def test_without_result_files_there_is_nothing_to_open_but_what_was_written_is_there(tmp_path: pathlib.Path) -> None:
    measured(tmp_path / "raw", "scan_1", 0, 1)
    results = testing.run_pipeline(
        SURVEY | {"write": ["tiff"]}, "scan_1", raw=tmp_path / "raw", shape=(2, 4), folder=tmp_path / "out"
    )
    assert list(results) == []
    assert (tmp_path / "out/processed/beamtide/scan_1/maps/survey_signal.tif").exists()


def test_a_temporary_folder_goes_with_the_results(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    measured(tmp_path / "raw", "scan_1", 0, 1)
    results = testing.run_pipeline(SURVEY, "scan_1", raw=tmp_path / "raw", shape=(2, 4))
    assert results.files["survey"].exists()
    del results
    gc.collect()
    assert list((tmp_path / "t").iterdir()) == []


def test_no_socket_and_no_thread(tmp_path: pathlib.Path) -> None:
    raw = tmp_path / "raw"
    measured(raw, "scan_1", 0, 1)
    code = (
        "import sys, threading, zmq\n"
        "zmq.Context.__init__ = None\n"
        "from beamtide import testing\n"
        f"from tests.unit.test_run_pipeline import SURVEY\n"
        f"testing.run_pipeline(SURVEY, 'scan_1', raw={str(tmp_path / 'raw')!r}, shape=(2, 4))\n"
        "print(threading.active_count())"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("\n1\n"), done.stderr[-2000:]
