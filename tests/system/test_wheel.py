"""What a user installs is the wheel: it holds what it needs and nothing else, and runs the demo far from any checkout."""

import json
import pathlib
import zipfile

import pytest

from tests.clean_venv import backend, clean_environment, run, wheel_of

pytestmark = [pytest.mark.long, pytest.mark.system]
ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("beamtide", "beamline_side", "cluster_side", "sbatch_templates")
NEEDED = (
    "beamline_side/simulation/demo/site.yaml",
    "beamline_side/simulation/demo/xrf.yaml",
    "beamline_side/simulation/demo/sample.cfg",
    "cluster_side/images/enter.sh",
    "cluster_side/modalities/native/xrf_fit.c",
    "cluster_side/modalities/native/xrf.h",
    "cluster_side/modalities/native/xrd.c",
    "sbatch_templates/base.sh.j2",
    "sbatch_templates/xrf.sh.j2",
)
WHERE = """
import importlib, importlib.metadata, json, sys
files = [importlib.import_module(name).__file__ for name in ("beamtide", "beamline_side", "cluster_side")]
commands = importlib.metadata.entry_points(group="beamtide.commands")
print(json.dumps({"files": files, "path": sys.path, "installed": [str(one.dist.locate_file("")) for one in commands]}))
"""
READ = """
import json, beamtide, numpy
iron = beamtide.open("scan_00001", processed="demo/processed")["xrf/area/Fe_K"]
print(json.dumps({"shape": iron.values.shape, "known": bool(numpy.isfinite(iron.values).all()), "sum": float(iron.values.sum())}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel of this tree."""
    return wheel_of(ROOT, tmp_path_factory.mktemp("wheel"), backend(tmp_path_factory.mktemp("backend")))


@pytest.fixture(scope="module")
def clean(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a new environment with the wheel."""
    return clean_environment(tmp_path_factory.mktemp("clean"), [wheel])


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: pathlib.Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    made_here = {"__pycache__", "_built"}
    assert held == {path.relative_to(ROOT).as_posix() for path in files if not made_here & set(path.parts)}
    assert not [name for name in NEEDED if name not in held]
    assert not [name for name in held if "tests" in pathlib.PurePosixPath(name).parts]


def test_nothing_is_imported_from_the_checkout(clean: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = json.loads(run(clean, tmp_path, "python", "-c", WHERE))
    assert str(ROOT) not in found["path"]
    assert all(pathlib.Path(place).is_relative_to(clean) for place in [*found["files"], *found["installed"]])


def test_the_demo_runs_from_the_wheel_to_its_end(clean: pathlib.Path, tmp_path: pathlib.Path) -> None:
    said = run(clean, tmp_path, "beamtide", "demo")
    assert "Fe" in said
    read = json.loads(run(clean, tmp_path, "python", "-c", READ))
    assert read["shape"] == [41, 41]
    assert read["known"]
    assert read["sum"] > 0
    assert "xrf/area/Fe_K" in run(clean, tmp_path, "beamtide", "get", "scan_00001", "--processed", "demo/processed")
