"""A task that fails for good, end to end: listed, shown, taken home, failing there, repaired, retried, visible everywhere."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import h5py
import numpy as np
import pytest

from beamline_side.hosts.all_in_one import Host
from beamline_side.hosts.demo import prepare_demo
from beamline_side.hosts.one_scan import follow
from beamline_side.simulation import beamline
from beamtide.cli import main
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import layout
from tests.system.deployments import edit, pids, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]
SCAN = Scan(id=ScanId("scan_00001"), shape=(3, 8), axes=("scanv", "scanu"))
BAD, WORSE = 1, 2
SENTENCE = "column 'encoder_3' has shape (8, 2, 2)"


def line_of(deployment: Deployment, line: int) -> pathlib.Path:
    return deployment.site.roots.raw / SCAN.id / beamline.ENCODERS / f"{SCAN.id}_{line:05d}.nxs"


def spoil(file: pathlib.Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["entry/data/encoder_3"]
        opened["entry/data/encoder_3"] = np.zeros((8, 2, 2))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Deployment, pathlib.Path]]:
    """A site with positions only, whose scan has two bad lines, and where the good ones are."""
    folder = tmp_path_factory.mktemp("dead")
    deployment = prepare_demo(folder)
    edit(deployment.file, "[encoders.yaml, xrf.yaml]", "[encoders.yaml]")
    edit(deployment.file, "leases: {ttl: 10, beat: 2}", "leases: {ttl: 5, beat: 0.5, faults: 2}")
    deployment = site.load(deployment.file)
    beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0)
    for line in (BAD, WORSE):
        shutil.copy(line_of(deployment, line), folder)
        spoil(line_of(deployment, line))
    with Host(deployment) as host, Client(deployment) as client:
        client.scan_started(SCAN)
        client.scan_ended(SCAN.id)
        follow(host, deployment, SCAN.id, lambda _: None, lambda: True)
        yield host, deployment, folder


def told(deployment: Deployment, *words: object, code: int = 0) -> dict[str, object]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main.run(["dlq", *map(str, words), "--json", "-c", str(deployment.file)]) == code, out.getvalue()
    found = json.loads(out.getvalue())
    assert isinstance(found, dict)
    return found


def holes_in(file: pathlib.Path) -> list[int]:
    with h5py.File(file) as opened:
        return [int(start) for start in opened["entry/holes/start"][()]] if "entry/holes/start" in opened else []


def rerun(bundle: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beamtide", "rerun", str(bundle)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_from_the_failure_to_the_repaired_file(
    live: tuple[Host, Deployment, pathlib.Path], capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    host, deployment, folder = live
    result = layout.result_file(deployment.site.roots.processed, SCAN.id, "encoders")
    assert holes_in(result) == [BAD * 8, WORSE * 8]

    letters = told(deployment, "list")["letters"]
    assert isinstance(letters, list)
    assert sorted(one["task"]["start"] for one in letters) == [BAD * 8, WORSE * 8]
    assert all(SENTENCE in one["reason"] and one["faults"] == 2 for one in letters)
    name = next(one["task"]["id"] for one in letters if one["task"]["start"] == BAD * 8)
    other = next(one["task"]["id"] for one in letters if one["task"]["start"] == WORSE * 8)
    shown = told(deployment, "show", name)
    assert "Traceback" in str(shown["trace"])
    assert shown["host"]
    assert shown["job"]

    capsys.readouterr()
    assert main.run(["dlq", "show", f"{SCAN.id}/enc", "-c", str(deployment.file)]) == 2
    assert "2 tasks begin with" in capsys.readouterr().err
    assert main.run(["dlq", "list", "-c", str(deployment.file)]) == 0
    assert name in capsys.readouterr().out
    assert main.run(["dlq", "show", name, "-c", str(deployment.file)]) == 0
    said = capsys.readouterr().out
    assert f"{name}: indexes 8 to 15 of {SCAN.id}, encoders\nfailed 2 times" in said
    assert "\nTraceback (most recent call last)" in said

    told(deployment, "export", name, "--to", tmp_path / "whole.zip", "--with-inputs")
    told(deployment, "export", name, "--to", tmp_path / "light")
    assert "faults" in (tmp_path / "light" / "failure.json").read_text()
    failed = rerun(tmp_path / "whole.zip")
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert SENTENCE in failed.stderr.splitlines()[-1]

    for line in (BAD, WORSE):
        (folder / line_of(deployment, line).name).replace(line_of(deployment, line))
    assert main.run(["rerun", str(tmp_path / "whole.zip")]) == 1, "the copy is as bad as it was"
    capsys.readouterr()
    assert main.run(["rerun", str(tmp_path / "light"), "--raw", str(deployment.site.roots.raw)]) == 0
    assert "works here: 8 indexes" in capsys.readouterr().out

    assert told(deployment, "retry", name)["retried"] == [name]
    until(host, lambda: holes_in(result) == [WORSE * 8])
    kill_and_wait(host, pids(host)["buffer.encoders"])
    assert told(deployment, "retry", f"{SCAN.id}/encoders")["retried"] == [other], "also after a restart of the buffer"
    until(host, lambda: holes_in(result) == [])
    with Client(deployment) as client:
        (state,) = client.products(SCAN.id)
        assert (state.holes, state.results, state.complete, state.corrections) == ((), 3, 24, 2)
        until(host, lambda: client.status(SCAN.id).tallies[0].results == 3)
        (tally,) = client.status(SCAN.id).tallies
        assert (tally.submitted, tally.abandoned, tally.reasons) == (3, 0, ())
        x = client.fetch(SCAN.id, "encoders/x").values.reshape(3, 8)
    with h5py.File(result) as opened:
        np.testing.assert_array_equal(opened["entry/data/x"][()].reshape(3, 8), x)
    np.testing.assert_allclose(x, np.tile(np.arange(8) * beamline.STEP, (3, 1)), atol=0.05)
    assert told(deployment, "list")["letters"] == []


def kill_and_wait(host: Host, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(host, lambda: pids(host).get("buffer.encoders", pid) != pid)
