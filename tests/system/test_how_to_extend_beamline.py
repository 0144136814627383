"""The writer and the component of docs/how-to-extend.md, as distributions of strangers in a clean environment.

They are extracted from the page, built, installed beside Beamtide's wheel, tried by their own tests, and run by `beamtide run`.
"""

import json
import pathlib

import h5py
import numpy as np
import pytest

from tests import how_to
from tests.clean_venv import ROOT, backend, clean_environment, run, wheel_of

pytestmark = [pytest.mark.long, pytest.mark.system, pytest.mark.timeout(300)]
DISTRIBUTIONS = ("A writer", "A component")
SHAPE = (4, 6)
READ = (
    "import json, pathlib, beamtide_npy_folder as n; "
    "found = n.read(pathlib.Path('processed/beamtide/scan_7/survey.arrays')); "
    "print(json.dumps({name: [values.tolist(), units] for name, (values, units) in found.items()}))"
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A new environment with Beamtide and both distributions."""
    environment, folder = backend(tmp_path_factory.mktemp("backend")), tmp_path_factory.mktemp("wheels")
    projects = [how_to.written(heading, tmp_path_factory.mktemp("project")) for heading in DISTRIBUTIONS]
    wheels = [wheel_of(project, folder, environment) for project in (ROOT, *projects)]
    return clean_environment(tmp_path_factory.mktemp("clean"), wheels)


@pytest.fixture
def scan(tmp_path: pathlib.Path) -> tuple[pathlib.Path, np.ndarray]:
    """A folder with the site of the page and a scan of one file per line; and the values in it."""
    how_to.written("A component", tmp_path)
    signal = np.random.default_rng(3).uniform(0, 200, SHAPE)
    (tmp_path / "raw" / "scan_7").mkdir(parents=True)
    for number, line in enumerate(signal):
        with h5py.File(tmp_path / "raw" / "scan_7" / f"line_{number:05d}.h5", "w") as file:
            file["signal"] = line
    return tmp_path, signal


@pytest.mark.parametrize("heading", DISTRIBUTIONS)
def test_the_tests_of_the_page_pass(clean: pathlib.Path, tmp_path: pathlib.Path, heading: str) -> None:
    project = how_to.written(heading, tmp_path)
    tests = [file.name for file in project.glob("test_*.py")]
    assert tests
    assert "1 passed" in run(clean, project, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_a_scan_is_processed_with_both(clean: pathlib.Path, scan: tuple[pathlib.Path, np.ndarray]) -> None:
    folder, signal = scan
    with (folder / "survey.yaml").open("a") as file:
        file.write("write: [npy_folder]\n")
    found = json.loads(run(clean, folder, "beamtide", "formats", "--json"))
    assert "npy_folder" in found["writers"]
    assert "threshold" in found["components"]
    assert "nothing is wrong" in run(clean, folder, "beamtide", "check", "site.yaml")
    said = run(clean, folder, "beamtide", "run", "scan_7", "-c", "site.yaml", "--shape", "4x6")
    assert "0 doubled" in said
    values, units = json.loads(run(clean, folder, "python", "-c", READ))["survey/signal"]
    np.testing.assert_allclose(values, signal)
    assert units == "counts"
    results = folder / "processed" / "beamtide" / "scan_7"
    assert not (results / "survey.h5").exists()
    with h5py.File(results / "closer.h5") as file:
        expected = np.where(signal > 100, (signal - 12) * 0.5, np.nan)
        np.testing.assert_allclose(file["entry/maps/signal/data"][()], expected)
        assert set(file["entry/holes/reason"].asstr()[()]) == {"survey/signal is not above 100"}
    assert (results / "maps" / "closer_signal.tif").exists()
