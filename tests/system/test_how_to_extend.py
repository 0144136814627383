"""The worked examples of docs/how-to-extend.md, as a stranger would use them: distributions of their own in a clean environment.

They are extracted from the page, built, installed beside Beamtide's wheel, tried by their own tests, and run by `beamtide run`.
"""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from tests import how_to
from tests.clean_venv import ROOT, backend, clean_environment, run, wheel_of

pytestmark = [pytest.mark.long, pytest.mark.system]
DISTRIBUTIONS = ("A modality", "A format", "A launcher")
"""Sections that are a distribution each."""
SHAPE = (4, 5)
SUMS = (
    "import sys, json, beamtide; r = beamtide.open('scan_7', processed='processed')['roi/counts']; "
    "print(json.dumps([r.values.tolist(), r.units]))"
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A new environment with Beamtide and all distributions of the page."""
    environment, folder = backend(tmp_path_factory.mktemp("backend")), tmp_path_factory.mktemp("wheels")
    projects = [how_to.written(heading, tmp_path_factory.mktemp("project")) for heading in DISTRIBUTIONS]
    wheels = [wheel_of(project, folder, environment) for project in (ROOT, *projects)]
    return clean_environment(tmp_path_factory.mktemp("clean"), wheels)


@pytest.fixture
def scan(clean: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, np.ndarray]]:
    """A folder with the site of the page and a scan of one file per line; and the spectra in it."""
    how_to.written("A format", tmp_path)
    spectra = np.random.default_rng(1).integers(0, 1000, (*SHAPE, 4))
    (tmp_path / "raw" / "scan_7").mkdir(parents=True)
    for number, line in enumerate(spectra):
        rows = "".join(",".join(map(str, row)) + "\n" for row in line)
        text = f"# scan {SHAPE[0]} {SHAPE[1]}\n{rows}# end\n"
        (tmp_path / "raw" / "scan_7" / f"line_{number:05d}.mca").write_text(text)
    yield tmp_path, spectra
    lineup = tmp_path / "state" / "lineup"  # jobs there may still wait for a task
    run(
        clean,
        tmp_path,
        "python",
        "-m",
        "beamtide_lineup.lineup",
        str(lineup),
        "stop",
        *(job.stem for job in lineup.glob("*.json")),
    )


@pytest.mark.parametrize("heading", DISTRIBUTIONS)
def test_the_tests_of_the_page_pass(clean: pathlib.Path, tmp_path: pathlib.Path, heading: str) -> None:
    project = how_to.written(heading, tmp_path)
    tests = [file.name for file in project.glob("test_*.py")]
    assert tests
    assert "1 passed" in run(clean, project, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_the_example_of_a_modality_is_short() -> None:
    files = how_to.sections()["A modality"]
    assert sum(len(text.splitlines()) for text in files.values()) <= 60


def test_beamtide_lists_and_shows_them(clean: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = json.loads(run(clean, tmp_path, "beamtide", "formats", "--json"))
    for group, name in (("formats", "mca"), ("modalities", "roi"), ("launchers", "lineup")):
        assert name in found[group]
    assert "first channel" in json.loads(run(clean, tmp_path, "beamtide", "schema", "roi"))["properties"]["first"]["description"]
    assert json.loads(run(clean, tmp_path, "beamtide", "schema", "lineup"))["properties"]["lanes"]["default"] == 2


@pytest.mark.parametrize("launcher", ["local", "lineup"])
def test_a_scan_is_processed_with_them(clean: pathlib.Path, scan: tuple[pathlib.Path, np.ndarray], launcher: str) -> None:
    folder, spectra = scan
    if launcher == "lineup":
        with (folder / "site.yaml").open("a") as file:
            file.write(how_to.sections()["A launcher"]["site-part.yaml"])
    assert "nothing is wrong" in run(clean, folder, "beamtide", "check", "site.yaml")
    said = run(clean, folder, "beamtide", "run", "scan_7", "-c", "site.yaml")
    assert "4 tasks: 4 done; 0 doubled" in said
    values, units = json.loads(run(clean, folder, "python", "-c", SUMS))
    assert values == spectra[:, :, 1:3].sum(axis=2).tolist()
    assert units == "counts"
    jobs = list((folder / "state" / "lineup").glob("*.json"))
    assert bool(jobs) == (launcher == "lineup")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("roi.yaml", "last: 3", "last: 0", "pipeline roi: settings of roi: last: Input should be greater than 0"),
        ("roi.yaml", "format: mca", "format: mcb", "roi.yaml:4  source.format: 'mcb' is not among the formats; known: "),
        ("roi.yaml", "modality: roi", "modality: rio", "roi.yaml:3  modality: 'rio' is not among the modalities; known: "),
        (
            "site.yaml",
            "state: state",
            "state: state\nlauncher: pbs",
            "launcher: 'pbs' is not among the launchers; known: lineup, local",
        ),
        ("site.yaml", "state: state", "launchers: {lineup: {lanes: 0}}\nstate: state", "site.yaml:4  launchers.lineup.lanes: "),
    ],
)
def test_check_knows_them(
    clean: pathlib.Path, scan: tuple[pathlib.Path, np.ndarray], file: str, old: str, new: str, said: str
) -> None:
    path = scan[0] / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert said in run(clean, scan[0], "beamtide", "check", "site.yaml", code=2)
