"""A component that ends again and again is told to whoever waits for it."""

import pathlib
import subprocess
import sys

import pytest

from beamline_side.hosts import all_in_one
from beamtide import clock
from beamtide.config import site

SITE = """site: p06
roots: {raw: raw, processed: processed}
state: state
pipelines: []
scaling: {caps: {jobs: 1, node_hours_per_day: 1}}
"""


def test_only_the_first_end_is_quiet(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.yaml").write_text(SITE)
    host = all_in_one.Host(site.load(tmp_path / "site.yaml"))
    (tmp_path / "state" / "logs").mkdir(parents=True)
    (tmp_path / "state" / "logs" / "a.log").write_text("starts\nno licence\n")
    starts: list[str] = []

    def dies(component: str) -> subprocess.Popen[bytes]:
        starts.append(component)
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(75)"])
        process.wait(60)
        return process

    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    monkeypatch.setattr(host, "_spawn", dies)
    host._processes["a"] = all_in_one._ComponentProcess(dies("a"), now[0])
    for ends in (1, 2, 3):
        host.tend()
        assert len(starts) == ends
        said = capsys.readouterr().err
        assert said.startswith("a ended again (exit code 75) and is restarted. a: no licence (log: ") if ends > 1 else not said
        now[0] += 15.0
        host.tend()
