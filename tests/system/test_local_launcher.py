"""Jobs as processes: their phases, their logs, and a polite end."""

import pathlib
import sys

import pytest

from beamtide import clock
from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import JobPhase, JobSpec
from cluster_side.scaling.launchers.local import LocalLauncher

pytestmark = pytest.mark.system


def job(token: str, program: str) -> JobSpec:
    return JobSpec("xrf", 1, 1, token, (sys.executable, "-c", program), {"WHO": "me"})


def settle(launcher: LocalLauncher, name: str, phase: JobPhase) -> bool:
    end = clock.monotonic() + 10
    while clock.monotonic() < end:
        if launcher.phases([name])[name] is phase:
            return True
        clock.pause(0.005)
    return False


def test_phases_and_logs(tmp_path: pathlib.Path) -> None:
    launcher = LocalLauncher(tmp_path / "logs")
    good, bad, long = launcher.submit(
        [
            job("a", "import os; print('hello', os.environ['WHO'])"),
            job("b", "raise SystemExit(2)"),
            job("c", "import signal; signal.pause()"),
        ]
    )
    assert settle(launcher, good, JobPhase.ENDED)
    assert settle(launcher, bad, JobPhase.FAILED)
    assert launcher.phases([long, "77777777"]) == {long: JobPhase.RUNNING, "77777777": JobPhase.UNKNOWN}
    assert (tmp_path / "logs/job-a.log").read_text() == "hello me\n"
    launcher.cancel([long, good])
    assert settle(launcher, long, JobPhase.FAILED)


def test_a_program_that_is_not_there_is_one_sentence(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="cannot start a job for pipeline xrf"):
        LocalLauncher(tmp_path).submit([JobSpec("xrf", 1, 1, "t", ("/nowhere/at/all",))])
