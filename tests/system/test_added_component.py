"""The worked example of a component and writers from outside in a real site: processes, sockets, SIGKILL, keys."""

import os
import pathlib
import random
import signal
from collections.abc import Iterator

import h5py
import numpy as np
import pytest

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.one_scan import follow, run_scan
from beamtide import clock, registry
from beamtide.cli import main
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import reading
from tests import how_to
from tests.plugins import installed
from tests.ports import free_ports
from tests.security.sites import site_keys
from tests.system.deployments import pids

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(200)]
POINTS = """
[beamtide.components]
threshold = beamtide_threshold:SERVICE
[beamtide.writers]
broken = broken_writers:broken
names = broken_writers:names
"""
WRITERS = """
def broken(product, out):
    out.path(".half").write_text("half")
    raise ValueError("no such colour")


def names(product, out):
    out.path(".txt").write_text(", ".join(product.results))
"""
LINES, COLUMNS = 12, 6
SCAN = Scan(id=ScanId("scan_7"), shape=(LINES, COLUMNS))


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """The site of the page, and both distributions on the path of every process."""
    packages = tmp_path / "packages"
    threshold = how_to.sections()["A component"]["beamtide_threshold.py"]
    installed(packages, "strangers", POINTS, {"beamtide_threshold.py": threshold, "broken_writers.py": WRITERS})
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH")))))
    registry.find.cache_clear()
    how_to.written("A component", tmp_path)
    text = (tmp_path / "site.yaml").read_text() + "spool: {reserve: 4, durability: relaxed}\n"
    (tmp_path / "site.yaml").write_text(
        text.replace("node_hours_per_day: 10}", "node_hours_per_day: 10}, tick: 0.2, idle_exit: 3")
    )
    (tmp_path / "raw" / "scan_7").mkdir(parents=True)
    yield tmp_path
    registry.find.cache_clear()


def measure(folder: pathlib.Path, number: int) -> np.ndarray:
    """One line of the scan, in its own file."""
    values = np.random.default_rng(number).uniform(0, 200, COLUMNS)
    part = folder / "raw" / f".{number}"
    with h5py.File(part, "w") as file:
        file["signal"] = values
    part.rename(folder / "raw" / "scan_7" / f"line_{number:05d}.h5")
    return values


def follow_ups(values: np.ndarray) -> int:
    """How many tasks follow: one per run of indexes on the same side, in each task of four."""
    large = values.ravel() > 100
    return sum(1 + int(np.count_nonzero(np.diff(large[at : at + 4]))) for at in range(0, large.size, 4))


def judge(deployment: Deployment, values: np.ndarray) -> None:
    results = reading.open("scan_7", processed=deployment.site.roots.processed)
    np.testing.assert_allclose(results["survey/signal"].values, values)
    np.testing.assert_allclose(results["closer/signal"].values, np.where(values > 100, (values - 12) * 0.5, np.nan))


def test_a_filter_that_is_killed_again_and_again_loses_nothing_and_submits_nothing_twice(folder: pathlib.Path) -> None:
    deployment, dice = site.load(folder / "site.yaml"), random.Random(1)
    assert site.check(folder / "site.yaml") == []
    lines: list[np.ndarray] = []
    kills = 0
    with Host(deployment) as host, Client(deployment) as client:
        client.scan_started(SCAN)

        def step(_: object) -> None:
            nonlocal kills
            for _ in range(2):
                if len(lines) < LINES:
                    lines.append(measure(folder, len(lines)))
            if len(lines) == LINES:
                client.scan_ended(SCAN.id)
            if kills < 5 and host.alive()["bright"] and dice.random() < 0.8:
                os.kill(pids(host)["bright"], signal.SIGKILL)
                kills += 1

        follow(host, deployment, SCAN.id, step, lambda: len(lines) == LINES)
        values = np.stack(lines)
        tallies = {tally.pipeline: tally for tally in client.status(SCAN.id).tallies}
        closer = tallies["closer"]
        assert closer.submitted == follow_ups(values) == closer.results + closer.abandoned
        reports = {report.card.name: report for report in client.topology()}
        assert (reports["bright"].card.kind, reports["bright"].card.upstream) == (
            "threshold",
            ("sink", "distributor", "topology"),
        )
        assert reports["sorter.closer"].progress.get("repeated", 0) == 0
    assert kills >= 3
    judge(deployment, values)


def test_it_waits_with_a_reason_and_shows_its_progress(folder: pathlib.Path) -> None:
    deployment = site.load(folder / "site.yaml")
    values = np.stack([measure(folder, number) for number in range(LINES)])
    outcome = run_scan(deployment, SCAN, lambda _: None)
    assert (outcome.unwritten, [path.name for path in outcome.files if path.suffix == ".h5"]) == ((), ["closer.h5", "survey.h5"])
    row = outcome.last.pipelines["closer"]
    assert (row.total, row.done + row.abandoned, row.doubled) == (follow_ups(values), follow_ups(values), 0)
    judge(deployment, values)
    before = clock.monotonic()
    assert run_scan(deployment, SCAN, lambda _: None).unwritten == ()
    assert clock.monotonic() - before < 60, "what is done is found to be done"


def test_it_shows_the_key_of_a_component(folder: pathlib.Path) -> None:
    site_keys(folder)
    first = free_ports(32)
    with (folder / "site.yaml").open("a") as file:
        file.write(f"network: {{bind: 127.0.0.1, ports: {first}-{first + 31}, keys: keys}}\n")
    values = np.stack([measure(folder, number) for number in range(LINES)])
    deployment = site.load(folder / "site.yaml")
    assert deployment.address("bright") == f"tcp://127.0.0.1:{first + len(deployment.components()) - 1}"
    run_scan(deployment, SCAN, lambda _: None)
    judge(deployment, values)


def test_a_run_ends_although_a_writer_never_can_and_says_so(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "site.yaml").write_text(
        (folder / "site.yaml").read_text().replace(", closer.yaml", "").replace("[bright.yaml]", "[]")
    )
    with (folder / "survey.yaml").open("a") as file:
        file.write("write: [broken, names]\n")
    for number in range(LINES):
        measure(folder, number)
    words = ["run", "scan_7", "-c", str(folder / "site.yaml"), "--shape", f"{LINES}x{COLUMNS}"]
    for _ in range(2):  # it is tried again each time
        assert main.run(words) == 2
        assert "survey is not written as broken: ValueError: no such colour" in capsys.readouterr().out
    results = folder / "processed" / "beamtide" / "scan_7"
    assert sorted(path.name for path in results.iterdir()) == [".survey.written.json", "survey.txt"]
    (folder / "packages" / "broken_writers.py").write_text(WRITERS.replace('raise ValueError("no such colour")', "return"))
    assert main.run(words) == 0
    assert (results / "survey.half").read_text() == "half"
