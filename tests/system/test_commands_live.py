"""Every command against live services, as a person or a script would use it: exit codes, one JSON object, files."""

import contextlib
import io
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import h5py
import numpy as np
import pytest
import tifffile

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.demo import prepare_demo
from beamline_side.hosts.one_scan import follow
from beamline_side.simulation import beamline
from beamtide import clock
from beamtide.cli import main
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import layout, reading
from tests.system.deployments import edit, processes_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(100)]
SCAN = Scan(id=ScanId("scan_00001"), shape=(3, 8), axes=("scanv", "scanu"))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A site whose services run, with relaxed durability; one scan is done."""
    deployment = prepare_demo(tmp_path_factory.mktemp("live"))
    edit(deployment.file, "reserve: 4", "reserve: 4, durability: relaxed")
    deployment = site.load(deployment.file)
    beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0)
    with Host(deployment) as host:
        assert told(deployment, "scan", "start", SCAN.id, "--shape", "3x8", "--axes", "scanv,scanu")["shape"] == [3, 8]
        assert told(deployment, "scan", "stop", SCAN.id)["ended"] == SCAN.id
        follow(host, deployment, SCAN.id, lambda _: None, lambda: True)
        yield deployment


def told(deployment: Deployment, *words: object, code: int = 0) -> dict[str, object]:
    """Run a command with --json in this process and return its object."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main.run([*map(str, words), "--json", "-c", str(deployment.file)]) == code, out.getvalue()
    assert out.getvalue().count("\n") == 1, "one object, one line"
    found = json.loads(out.getvalue())
    assert isinstance(found, dict)
    return found


def words_of(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """Run a command in this process and return what it says to people."""
    capsys.readouterr()
    assert main.run([*map(str, words)]) == code
    said = capsys.readouterr()
    return said.err if code == 2 else said.out


def test_topology(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(live, "topology")["components"]
    assert {one["name"] for one in found} == set(live.components())
    assert all(one["state"] == "running" and one["pid"] > 1 for one in found)
    assert "sorter.xrf" in words_of(capsys, "topology", "-c", live.file)


def test_relaxed_durability_is_shown_wherever_one_looks(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"distributor", "metadata", "sink", *(f"{kind}.{name}" for kind in ("buffer", "sorter") for name in live.pipelines)}
    end = clock.monotonic() + 20
    relaxed: set[str] = set()
    while relaxed != names and clock.monotonic() < end:  # a component says it with its first beat
        relaxed = {one["name"] for one in told(live, "topology")["components"] if one["progress"].get("relaxed")}
    assert relaxed == names
    for words in (("topology",), ("watch", SCAN.id)):
        said = words_of(capsys, *words, "-c", live.file)
        assert "durability: relaxed in buffer.encoders, buffer.xrf, distributor" in said


def test_watch_of_a_scan_that_is_over(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    rows = told(live, "watch", SCAN.id)["pipelines"]
    assert {name: (row["done"], row["total"], row["abandoned"], row["doubled"]) for name, row in rows.items()} == {
        "encoders": (3, 3, 0, 0),
        "xrf": (3, 3, 0, 0),
    }
    assert "xrf: 3 tasks: 3 done" in words_of(capsys, "watch", SCAN.id, "-c", live.file)
    assert "there is no scan 'scan_9'" in words_of(capsys, "watch", "scan_9", "-c", live.file, code=2)


def test_scans(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = [one for one in told(live, "scan", "list")["scans"] if one["scan"] == SCAN.id]
    assert (found["phase"], found["shape"], found["points"]) == ("ended", "3x8", 24)
    assert "ended" in words_of(capsys, "scan", "list", "-c", live.file)
    assert "--shape" in words_of(capsys, "scan", "start", "s", "--shape", "0x2", "-c", live.file, code=2)
    assert "s/../t" in words_of(capsys, "scan", "start", "s/../t", "--shape", "2x2", "-c", live.file, code=2)


def test_settings(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    digest = told(live, "settings", "put", "xrf")["digest"]
    assert words_of(capsys, "settings", "put", "xrf", "-c", live.file).strip() == digest
    shown = told(live, "settings", "show", digest)
    assert shown["modality"] == "xrf"
    assert shown["settings"] == {"detectors": "all", "dead_time": True}
    assert json.loads(words_of(capsys, "settings", "show", digest, "-c", live.file)) == shown
    assert {one["modality"] for one in told(live, "settings", "list")["settings"]} == {"encoders", "xrf"}
    assert digest in words_of(capsys, "settings", "list", "xrf", "-c", live.file)
    assert "there is no pipeline 'nothing'" in words_of(capsys, "settings", "put", "nothing", "-c", live.file, code=2)
    assert words_of(capsys, "settings", "show", "0" * 64, "-c", live.file, code=2)


def test_a_task_of_ones_own(live: Deployment, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tasks.json"
    given = {"root": "raw", "path": f"{SCAN.id}/{beamline.ENCODERS}/{SCAN.id}_00000.nxs", "format": "p06_pilc"}
    task = {"scan": "mine", "pipeline": "encoders", "modality": "encoders", "start": 0, "stop": 8}
    task["settings"], task["inputs"] = told(live, "settings", "put", "encoders")["digest"], [given | {"first": 0, "last": 8}]
    file.write_text(json.dumps([task]))
    ids = told(live, "submit", file)["submitted"]
    assert ids == [f"mine/encoders/{task['settings'][:8]}/000000-000008"]
    assert told(live, "submit", file)["submitted"] == ids, "once more changes nothing"
    with Client(live) as client:
        for state in client.subscribe("mine", "encoders"):
            if state.complete == 8:
                break
        np.testing.assert_allclose(client.fetch("mine", "encoders/x").values, np.arange(8) * beamline.STEP, atol=0.05)
    file.write_text("[{}]")
    assert "tasks.json, task 0" in words_of(capsys, "submit", file, "-c", live.file, code=2)


def test_cancel(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    told(live, "scan", "start", "endless", "--shape", "4x4")
    assert told(live, "cancel", "endless", "--reason", "not needed")["cancelled"] == "endless"
    assert "no pipeline 'x'" in words_of(capsys, "cancel", "endless", "--pipeline", "x", "-c", live.file, code=2)
    told(live, "scan", "stop", "endless", "--points", "0")


def test_get(live: Deployment, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    iron, file = "xrf/area/Fe_K", layout.result_file(live.site.roots.processed, SCAN.id, "xrf")
    assert SCAN.id in told(live, "get")["scans"]
    assert iron in told(live, "get", SCAN.id)["datasets"]
    assert told(live, "get", SCAN.id, "xrf", "--verify")["problems"] == []
    assert "files are as they were written" in words_of(capsys, "get", SCAN.id, "--verify", "-c", live.file)
    whole, here = tmp_path / "whole", tmp_path / "here"
    assert told(live, "get", SCAN.id, "--to", whole)["written"] == [str(whole / SCAN.id)]
    assert (whole / SCAN.id / "preview").is_dir()
    (one,) = told(live, "get", SCAN.id, "xrf", "--to", here)["written"]
    assert reading.verify(one) == []
    expected = reading.open(SCAN.id, live.site.roots.processed)[iron].values
    read = {"npy": np.load, "csv": lambda path: np.loadtxt(path, delimiter=","), "tif": tifffile.imread}
    for ending, reader in read.items():
        (path,) = told(live, "get", SCAN.id, iron, "--as", ending, "--to", here)["written"]
        np.testing.assert_allclose(reader(path), expected, rtol=1e-5)
    assert "exists already" in words_of(capsys, "get", SCAN.id, iron, "--as", "npy", "--to", here, "-c", live.file, code=2)
    assert "has no 'xrf/Xx'" in words_of(capsys, "get", SCAN.id, "xrf/Xx", "-c", live.file, code=2)
    damaged = whole / "beamtide" / SCAN.id
    damaged.mkdir(parents=True)
    (damaged / file.name).write_bytes(file.read_bytes())
    with h5py.File(damaged / file.name, "r+") as changed:
        changed["entry/data/area/Fe_K"][0] += 1
    assert told(live, "get", SCAN.id, "--verify", "--processed", whole, code=1)["problems"]


def test_what_needs_no_service(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("site", "pipeline", "xrf"):
        assert json.loads(words_of(capsys, "schema", what))["properties"]
    assert "p06_xspress3" in json.loads(words_of(capsys, "formats", "--json"))["formats"]
    assert json.loads(words_of(capsys, "check", live.file, "--json")) == {"file": str(live.file), "problems": []}
    assert "nothing is wrong" in words_of(capsys, "check", live.file)


def test_jobs_are_listed_limited_and_explained(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    known = told(live, "jobs")
    assert known["cap"] == live.site.scaling.caps.jobs
    said = words_of(capsys, "jobs", "-c", live.file)
    assert "node-hours in 24 h" in said
    assert re.search(r"xrf starts in: imports [\d.]+ s, kernel [\d.]+ s", said), said
    assert told(live, "scale", "xrf", "--max", 1) == {"pipeline": "xrf", "max": 1, "paused": False}
    assert told(live, "jobs")["pipelines"][1]["most"] == 1  # type: ignore[index]
    told(live, "scale", "xrf", "--pause")
    assert "paused" in words_of(capsys, "jobs", "-c", live.file)
    told(live, "scale", "xrf", "--resume")
    assert "say one of --max N" in words_of(capsys, "scale", "xrf", "-c", live.file, code=2)
    assert "no pipeline 'x'" in words_of(capsys, "scale", "x", "--pause", "-c", live.file, code=2)
    said = words_of(capsys, "explain", SCAN.id, "-c", live.file)
    assert "xrf       finished. 3 tasks: 3 done." in said
    assert told(live, "explain")["dead"] == []
    assert "there is no scan 'scan_9'" in words_of(capsys, "explain", "scan_9", "-c", live.file, code=2)


def test_pictures_for_lavue_are_listed(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = told(live, "lavue", SCAN.id)["pictures"]
    assert {"encoders_x", "xrf_area_Fe_K", "xrf_area_Zn_K"} <= set(pictures)  # type: ignore[call-overload]
    assert "there is no scan 'scan_9'" in words_of(capsys, "lavue", "scan_9", "-c", live.file, code=2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = words_of(capsys, "lavue", "-c", live.file, "--port", port, code=2)
    assert said.startswith(f"cannot listen on tcp://127.0.0.1:{port}: Address already in use")
    assert "choose another --port" in said


def test_what_a_job_would_be_is_shown_and_nothing_starts(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    before = {one["id"] for one in told(live, "jobs")["jobs"]}  # type: ignore[attr-defined]
    (order,) = told(live, "render", "xrf", "--queued", 200)["orders"]  # type: ignore[misc]
    assert order["pipeline"] == "xrf"
    assert 1 <= order["jobs"] <= live.site.scaling.caps.jobs
    assert f"work -c {live.file} --pipeline xrf" in order["script"]
    assert "work -c" in words_of(capsys, "render", "encoders", "-c", live.file)
    assert "no pipeline or modality 'x'" in words_of(capsys, "render", "x", "-c", live.file, code=2)
    proposed = told(live, "autoscale", "--dry-run")["orders"]
    assert [one["pipeline"] for one in proposed] == list(live.pipelines)  # type: ignore[union-attr,index,attr-defined]
    assert {one["id"] for one in told(live, "jobs")["jobs"]} <= before, "jobs may leave meanwhile"  # type: ignore[attr-defined]
    assert "another autoscaler runs for this site" in words_of(capsys, "autoscale", "--once", "-c", live.file, code=2)


def test_a_second_host_on_the_same_state_is_refused(live: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    assert "another" in words_of(capsys, "serve", "sink", "-c", live.file, code=2)


@pytest.fixture
def own(tmp_path: pathlib.Path) -> Deployment:
    """A site of its own, with files of a scan and nothing running."""
    deployment = prepare_demo(tmp_path)
    beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0)
    return site.load(deployment.file)


@pytest.mark.long
def test_run_one_pipeline_of_a_folder_interrupted_and_again(own: Deployment) -> None:
    """Ctrl-C leaves no process and says how to go on; the same command then completes."""
    words = ["run", SCAN.id, "--pipelines", "encoders", "--workers", "1"]
    command = [sys.executable, "-m", "beamtide", *words, "-c", str(own.file)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running, end = own.site.state / "derived.yaml", clock.monotonic() + 30
    while len(processes_of(running)) < len(own.components()) - 1 and clock.monotonic() < end:
        clock.pause(0.02)  # two components fewer than with both pipelines, and a job
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "the same command continues from there" in said
    assert "Traceback" not in said
    end = clock.monotonic() + 10
    while processes_of(running) and clock.monotonic() < end:  # one that was just being born ends with its parent
        clock.pause(0.05)
    assert processes_of(running) == []
    value = told(own, *words)
    assert [(name, row["done"], row["abandoned"]) for name, row in value["last"]["pipelines"].items()] == [("encoders", 3, 0)]
    assert value["files"] == [str(layout.result_file(own.site.roots.processed, SCAN.id, "encoders"))]
    assert reading.verify(value["files"][0]) == []
    settings = own.file.parent / "encoders.yaml"
    settings.write_text(settings.read_text().replace("    rotation: {field: encoder_1, units: deg}\n", ""))
    assert told(own, *words)["files"] == value["files"], "what was superseded is not shown"
    found = reading.open(SCAN.id, own.site.roots.processed)
    (before,) = {name.partition("/")[0] for name in found} - {"encoders"}
    assert "encoders/x" in found
    assert "encoders/rotation" not in found
    assert f"{before}/rotation" in found
