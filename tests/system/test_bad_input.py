"""Bad input, end to end: every mistake is a sentence that names its place, and nothing else suffers from it.

One small scan has all the bad lines that a night brings, and is processed while the results folder cannot be written.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.demo import prepare_demo
from beamline_side.hosts.one_scan import follow, run_scan
from beamline_side.hosts.process import PARENT
from beamline_side.simulation import beamline
from beamtide import clock
from beamtide.cli import main
from beamtide.client.client import Client
from beamtide.client.snapshot import Snapshot, snapshot
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, NoAnswer
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import Task
from beamtide.results import layout
from tests.builders.tasks import make_task
from tests.ports import free_ports
from tests.small_disk import small_disk
from tests.system.deployments import edit, pids, processes_of, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(100)]
LINES, COLUMNS = 7, 8
MISSING, MISMATCH, TRUNCATED, GROWING = 1, 2, 3, 5
SCAN = Scan(id=ScanId("scan_00001"), shape=(LINES, COLUMNS), axes=("scanv", "scanu"))
XSPRESS, ENCODERS = beamline.DETECTOR, beamline.ENCODERS
WRONG = """
pipeline: wrong
modality: encoders
source:
  match: "{scan}/pilctriggergenerator_*/*.nxs"
  options: {x: /entry/data/encoder_9}
  settle: 0.2
settings: {axes: {x: {field: x, units: um}}}
write: [tiff]
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    raw = tmp_path_factory.mktemp("simulated")
    beamline.simulate(raw, SCAN, seconds_per_line=0)
    return raw


def prepared(folder: pathlib.Path, simulated: pathlib.Path) -> Deployment:
    """Write the site of the demo with the simulated scan; scaled down to two jobs and short waiting."""
    deployment = prepare_demo(folder)
    shutil.copytree(simulated, deployment.site.roots.raw, dirs_exist_ok=True)
    edit(deployment.file, "jobs: 4", "jobs: 2")
    edit(deployment.file, "leases: {ttl: 10, beat: 2}", "leases: {ttl: 4, beat: 0.5}")
    for name in ("encoders", "xrf"):
        edit(deployment.file.parent / f"{name}.yaml", "frames_per_task: line", "frames_per_task: line\n  settle: 0.2")
    return site.load(deployment.file)


def line_of(deployment: Deployment, device: str, line: int) -> pathlib.Path:
    return deployment.site.roots.raw / SCAN.id / device / f"{SCAN.id}_{line:05d}.nxs"


@contextlib.contextmanager
def held_for_writing(file: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Another process has the file open, with half of it written; calling the value makes it write the rest."""
    script = (
        "import h5py, sys\n"
        "name = sys.argv[1]\n"
        "with h5py.File(name, 'r') as old: frames = {p: old[p][()] for p in [f'entry/data/encoder_{n}' for n in range(1, 5)]}\n"
        "with h5py.File(name, 'w') as new:\n"
        "    for path, values in frames.items(): new.create_dataset(path, data=values[:4], maxshape=(None,), chunks=True)\n"
        "    new.flush(); print('held', flush=True); sys.stdin.readline()\n"
        "    for path, values in frames.items(): new[path].resize(len(values), 0); new[path][:] = values\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    try:
        yield lambda: print(file=child.stdin, flush=True)
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.wait(10)
        child.stdout.close()


@dataclass
class Night:
    """What was seen while the bad scan was processed."""

    deployment: Deployment
    blocked: Snapshot
    last: Snapshot
    watched: dict[str, object]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, simulated: pathlib.Path) -> Night:
    deployment = prepared(tmp_path_factory.mktemp("night"), simulated)
    (deployment.file.parent / "wrong.yaml").write_text(WRONG)
    edit(deployment.file, "[encoders.yaml, xrf.yaml]", "[encoders.yaml, xrf.yaml, wrong.yaml]")
    deployment = site.load(deployment.file)
    for device in (XSPRESS, ENCODERS):
        line_of(deployment, device, MISSING).unlink()
    shutil.copy(line_of(deployment, ENCODERS, LINES - 1), line_of(deployment, ENCODERS, LINES))
    with line_of(deployment, XSPRESS, TRUNCATED).open("r+b") as file:
        file.truncate(5000)
    with h5py.File(line_of(deployment, XSPRESS, MISMATCH), "r+") as spectra:
        where = "entry/instrument/xspress3/channel01/histogram"
        half = spectra[where][:, :1024]
        del spectra[where]
        spectra[where] = half
    in_the_way = deployment.site.roots.processed / "beamtide"
    in_the_way.write_text("a file where a folder should be")
    growing = line_of(deployment, ENCODERS, GROWING)
    with held_for_writing(growing) as complete, Host(deployment) as host, Client(deployment) as client:
        client.scan_started(SCAN)
        until(host, lambda: snapshot(client, SCAN.id).pipelines["xrf"].done)
        complete()
        client.scan_ended(SCAN.id)
        until(host, lambda: "is not written" in snapshot(client, SCAN.id).notes.get("writer", ""))
        blocked = snapshot(client, SCAN.id)
        in_the_way.unlink()
        last = follow(host, client.deployment, SCAN.id, lambda _: None, lambda: True)
        watched = io.StringIO()
        with contextlib.redirect_stdout(watched):
            assert main.run(["watch", SCAN.id, "--json", "-c", str(deployment.file)]) == 0
    return Night(deployment, blocked, last, json.loads(watched.getvalue()))


def holes_of(night: Night, pipeline: str) -> dict[tuple[int, int], str]:
    """Return the reasons of the holes in a result file, by lines."""
    with h5py.File(layout.result_file(night.deployment.site.roots.processed, SCAN.id, pipeline)) as file:
        holes = file["entry/holes"]
        found = zip(holes["start"][()], holes["stop"][()], holes["reason"].asstr()[()], strict=True)
        return {(int(start) // COLUMNS, int(stop) // COLUMNS): reason for start, stop, reason in found}


@pytest.mark.long
def test_bad_lines_are_holes_whose_reasons_name_their_files(night: Night) -> None:
    holes = holes_of(night, "xrf")
    assert sorted(holes) == [(line, line + 1) for line in (MISSING, MISMATCH, TRUNCATED)]
    for line, words in ((MISSING, "never came"), (MISMATCH, "(1024,)"), (TRUNCATED, "truncated")):
        assert f"{XSPRESS}/{SCAN.id}_{line:05d}.nxs" in holes[line, line + 1]
        assert words in holes[line, line + 1]


@pytest.mark.long
def test_frames_beyond_the_scan_are_told(night: Night) -> None:
    assert f"the files hold {COLUMNS} frames more than the scan has points" in night.last.notes["source"]


@pytest.mark.long
def test_all_other_lines_have_their_maps(night: Night) -> None:
    with h5py.File(layout.result_file(night.deployment.site.roots.processed, SCAN.id, "xrf")) as file:
        iron = file["entry/maps/area/Fe_K/Fe_K"][()] if "entry/maps/area/Fe_K/Fe_K" in file else file["entry/data/area/Fe_K"][()]
    lost = np.isnan(iron.reshape(LINES, COLUMNS)).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [MISSING, MISMATCH, TRUNCATED]
    assert not np.isnan(iron.reshape(LINES, COLUMNS)[~lost]).any()


@pytest.mark.long
def test_a_file_that_is_written_while_the_scan_runs_is_read_when_it_is_whole(night: Night) -> None:
    assert sorted(holes_of(night, "encoders")) == [(MISSING, MISSING + 1)]
    with h5py.File(layout.result_file(night.deployment.site.roots.processed, SCAN.id, "encoders")) as file:
        x = file["entry/data/x"][()].reshape(LINES, COLUMNS)
    np.testing.assert_allclose(x[GROWING], np.arange(COLUMNS) * beamline.STEP, atol=0.05)


@pytest.mark.long
def test_a_wrong_dataset_name_ends_every_index_and_hinders_nobody(night: Night) -> None:
    row = night.last.pipelines["wrong"]
    assert row.abandoned == row.total > 0
    assert any("encoder_9" in reason and "correct source.options" in reason for reason in row.reasons)


@pytest.mark.long
def test_reasons_are_in_what_watch_shows(night: Night) -> None:
    text = json.dumps(night.watched)
    for line in (MISSING, MISMATCH, TRUNCATED):
        assert f"{SCAN.id}_{line:05d}.nxs" in text


@pytest.mark.long
def test_results_wait_while_their_folder_cannot_be_written(night: Night) -> None:
    assert "beamtide" in night.blocked.notes["writer"]
    assert "Trying again every" in night.blocked.notes["writer"]
    assert "writer" not in night.last.notes


def test_a_configuration_without_elements_is_refused_before_anything_starts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = prepare_demo(tmp_path)
    cfg = deployment.file.parent / "sample.cfg"
    head, _, rest = cfg.read_text().partition("[peaks]\n")
    cfg.write_text(head + "[peaks]\n" + rest[rest.index("\n[") :])
    assert main.run(["check", str(deployment.file)]) == 2
    assert "sample.cfg: [peaks] names no element" in capsys.readouterr().out
    assert main.run(["run", SCAN.id, "-c", str(deployment.file), "--shape", "3x8"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pipeline xrf: ")
    assert "[peaks] names no element" in said
    assert not deployment.site.state.exists()


def test_a_typo_has_a_place_and_a_suggestion(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = prepare_demo(tmp_path)
    edit(deployment.file.parent / "xrf.yaml", "calibration:", "calibraton:")
    assert main.run(["run", SCAN.id, "-c", str(deployment.file)]) == 2
    said = capsys.readouterr().err
    assert "xrf.yaml:10  calibraton" in said
    assert "did you mean calibration?" in said


def test_a_port_that_is_taken_leaves_nothing_running(tmp_path: pathlib.Path, simulated: pathlib.Path) -> None:
    deployment = prepared(tmp_path, simulated)
    edit(deployment.file, "[encoders.yaml, xrf.yaml]", "[encoders.yaml]")
    deployment = site.load(deployment.file)
    first = free_ports(len(deployment.components()))
    port = first + deployment.components().index("sink")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        edit(deployment.file, "pipelines:", f"network: {{bind: 127.0.0.1, ports: {first}-{first + 20}}}\npipelines:")
        with pytest.raises(BadInput, match=rf"cannot listen on tcp://127.0.0.1:{port}: .*network.ports"):
            run_scan(site.load(deployment.file), SCAN, lambda _: None)
    assert processes_of(deployment.file) == []


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    with small_disk(tmp_path / "disk", mib=16) as folder:
        yield folder


@pytest.mark.long
def test_a_full_disk_stops_new_work_and_nothing_else(tmp_path: pathlib.Path, simulated: pathlib.Path, disk: pathlib.Path) -> None:
    deployment = prepared(tmp_path / "site", simulated)
    edit(deployment.file, "state: ../state", f"state: {disk}")
    edit(deployment.file, "[encoders.yaml, xrf.yaml]", "[encoders.yaml]")
    edit(deployment.file, "reserve: 4", "reserve: 1")
    deployment = site.load(deployment.file)
    ballast = disk / "ballast"
    with Host(deployment) as host, Client(deployment) as client:
        client.scan_started(SCAN)
        until(host, lambda: client.scans(SCAN.id))
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        first = {name: pid for name, pid in pids(host).items() if name not in ("source", "writer", "autoscaler")}
        until(host, lambda: any("is full" in one.why for one in client.topology() if one.card.name == "distributor"))
        with Client(deployment, patience=1.0) as hasty, pytest.raises(NoAnswer, match=r"cannot take SubmitRequest now.* full"):
            hasty.submit([task_of(0)])
        client.status("s")
        ballast.unlink()
        until(host, lambda: client.scans(SCAN.id))
        client.scan_ended(SCAN.id)
        last = follow(host, client.deployment, SCAN.id, lambda _: None, lambda: True)
        assert first.items() <= dict(pids(host)).items(), "a service ended"
    assert last.pipelines["encoders"].abandoned == 0


LIMITED = """
import resource, sys
from beamtide.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
main(["serve", "distributor", "-c", sys.argv[2]])
"""


def test_a_distributor_that_cannot_write_stops_with_75_and_keeps_its_word(tmp_path: pathlib.Path) -> None:
    """No file may grow beyond 2 MB: what was acknowledged before that is there when there is room again."""
    deployment = prepare_demo(tmp_path)
    edit(deployment.file, "reserve: 4", "reserve: 1")

    def serve(most: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", LIMITED, str(most), str(deployment.file)]
        environment = os.environ | {PARENT: str(os.getpid())}  # should this test fail, it ends with us
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)

    acknowledged, child = 0, serve(2_000_000)
    with Client(deployment, patience=20) as client, Client(deployment, patience=1.5) as hasty:
        client.status("s")
        while child.poll() is None and acknowledged < 3000:
            with contextlib.suppress(NoAnswer):
                hasty.submit([task_of(acknowledged)])
                acknowledged += 1
        assert child.wait(10) == 75
        assert "everything acknowledged is on it" in child.communicate()[1]
        assert acknowledged > 10
        child = serve(1 << 30)
        (tally,) = client.status("s").tallies
        child.terminate()
        child.communicate(timeout=10)
    assert acknowledged <= tally.submitted <= acknowledged + 1


def task_of(number: int) -> Task:
    return make_task(number, pipeline="encoders", modality="encoders", settings="d" * 64)


@pytest.mark.parametrize("component", [["serve", "sink"], ["autoscale"]], ids=["sink", "autoscaler"])
def test_whichever_component_comes_first_makes_the_folders_for_us_alone(tmp_path: pathlib.Path, component: list[str]) -> None:
    deployment = prepare_demo(tmp_path)
    command = [sys.executable, "-m", "beamtide", *component, "-c", str(deployment.file)]
    environment = os.environ | {PARENT: str(os.getpid())}
    place, end = deployment.sockets(), clock.monotonic() + 30
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as child:
        while not list(place.glob("*")) and child.poll() is None and clock.monotonic() < end:
            clock.pause(0.02)
        listens = list(place.glob("*"))
        child.terminate()
        said = child.communicate()[1]
    assert listens, said
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    refused = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert refused.returncode == 2
    assert "must be a folder that only you may enter" in refused.stderr
