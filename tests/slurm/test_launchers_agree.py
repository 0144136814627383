"""One suite for all launchers: this machine, a fake Slurm by its commands and through pyslurm's calls, and a real Slurm."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from beamtide.config.models import Deployment
from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.base import EndCause, JobListing, Launcher, Phase, Seen, Submitted
from cluster_side.scaling.launchers.slurm.pyslurm_backend import Pyslurm
from tests.slurm import stand_in
from tests.slurm.fake import FakeSlurm
from tests.slurm.sites import PAUSE, POLITE, order, seen, settle, site_in, wait_for
from tests.waits import wait_until

pytestmark = pytest.mark.system
LONG = pytest.mark.long


@dataclass
class Bench:
    """A launcher under test."""

    kind: str
    deployment: Deployment
    launchers: list[Launcher] = field(default_factory=list)

    def launcher(self) -> Launcher:
        """Return a new launcher, as after a restart of the autoscaler."""
        self.launchers.append(launcher_of(self.deployment))
        return self.launchers[-1]

    def end(self) -> None:
        """End what still runs; every launcher sees it."""
        for launcher in self.launchers:
            launcher.cancel(tuple(seen(launcher).jobs))
        for launcher in self.launchers:
            wait_for(launcher, _all_gone, "an end of all jobs")


def _all_gone(listing: JobListing) -> bool | None:
    alive = (Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN)
    return (isinstance(listing, Seen) and not any(job.phase in alive for job in listing.jobs.values())) or None


KINDS = ("local", "fake", *(pytest.param(kind, marks=LONG) for kind in ("pyslurm", "real", "real, pyslurm")))


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    kind = request.param
    if "pyslurm" in kind:
        try:
            import pyslurm  # type: ignore[import-not-found, unused-ignore]  # noqa: F401  the real one, where it loads
        except Exception:
            monkeypatch.setitem(sys.modules, "pyslurm", stand_in)  # type: ignore[arg-type, unused-ignore]
        monkeypatch.setattr(stand_in.Jobs, "numbers", {})
    backend = "pyslurm" if "pyslurm" in kind else "commands"
    if "real" in kind:
        cluster = request.getfixturevalue("real_slurm")
        yield Bench(kind, site_in(tmp_path, "slurm", backend=backend))
        cluster.clear()
    elif kind == "local":
        bench = Bench(kind, site_in(tmp_path, "local"))
        yield bench
        bench.end()
    else:
        with FakeSlurm(tmp_path / "slurm"):
            yield Bench(kind, site_in(tmp_path, "slurm", backend=backend))


def test_an_array_runs_and_ends(bench: Bench) -> None:
    launcher = bench.launcher()
    if "pyslurm" in bench.kind:
        assert isinstance(launcher._backend, Pyslurm)  # type: ignore[attr-defined]
    answer = launcher.submit(order(bench.deployment, "tok-1", "print('ran')", count=3))
    assert isinstance(answer, Submitted)
    assert len(set(answer.ids)) == 3
    for job in answer.ids:
        sighting = settle(launcher, job, Phase.ENDED)
        assert (sighting.token, sighting.cause) == ("tok-1", EndCause.DONE)


def test_one_job_its_log_and_its_environment(bench: Bench) -> None:
    launcher = bench.launcher()
    program = "import os; print(os.environ['WHO'], os.environ.get('DISPLAY'))"
    answer = launcher.submit(order(bench.deployment, "tok-1", program))
    assert isinstance(answer, Submitted)
    settle(launcher, answer.ids[0], Phase.ENDED)
    (log,) = (bench.deployment.site.state / "logs").glob(f"beamtide-p06-11010000-xrf-{answer.ids[0]}*.log")
    wait_until(log.read_text, "a log")
    assert log.read_text().splitlines()[-1] == "me & my $HOME None"


def test_words_arrive_as_they_are(bench: Bench, tmp_path: pathlib.Path) -> None:
    launcher = bench.launcher()
    words = ("a b", "'", '"', "$(touch /tmp/never)", "`id`", "*", "\\", "--export=ALL", "ü")
    program = "import sys; print(sys.argv[2:])"
    answer = launcher.submit(order(bench.deployment, "tok-1", program, words=words))
    assert isinstance(answer, Submitted)
    settle(launcher, answer.ids[0], Phase.ENDED)
    (log,) = (bench.deployment.site.state / "logs").iterdir()
    wait_until(log.read_text, "a log")
    assert log.read_text().splitlines()[-1] == str(list(words))


def test_a_job_that_fails_says_how(bench: Bench) -> None:
    launcher = bench.launcher()
    answer = launcher.submit(order(bench.deployment, "tok-1", "raise SystemExit(3)", count=2))
    assert isinstance(answer, Submitted)
    assert {settle(launcher, job, Phase.FAILED).cause for job in answer.ids} == {EndCause.CODE}


@pytest.mark.parametrize("after", ["", "srun: error: n1: task 0: Exited with exit code 69"])
def test_what_a_job_said_last_is_its_reason(bench: Bench, after: str) -> None:
    launcher, words = bench.launcher(), f"first\nbeamtide job: \x1b[31mcannot read /raw\n\n{after}"
    answer = launcher.submit(order(bench.deployment, "tok-1", f"raise SystemExit({words!r})"))
    assert isinstance(answer, Submitted)
    said = settle(launcher, answer.ids[0], Phase.FAILED).reason
    assert said.endswith("beamtide job: cannot read /raw")
    assert "first" not in said


def test_cancelled_jobs_hear_sigterm_and_others_stay(bench: Bench) -> None:
    launcher = bench.launcher()
    answer = launcher.submit(order(bench.deployment, "tok-1", POLITE, count=3))
    assert isinstance(answer, Submitted)
    first, second, third = answer.ids
    logs = bench.deployment.site.state / "logs"
    wait_until(lambda: sum(bool(log.read_text()) for log in logs.glob("*.log")) == 3, "three jobs that are up")
    launcher.cancel([first, second])
    launcher.cancel([])
    for job in (first, second):
        settle(launcher, job, Phase.ENDED, Phase.FAILED)
    assert settle(launcher, third, Phase.RUNNING).nodes
    launcher.cancel([first, third])
    settle(launcher, third, Phase.ENDED, Phase.FAILED)


def test_a_new_launcher_finds_the_jobs_by_token(bench: Bench) -> None:
    answer = bench.launcher().submit(order(bench.deployment, "tok-7", PAUSE, count=2))
    assert isinstance(answer, Submitted)
    again = bench.launcher()
    for job in answer.ids:
        assert settle(again, job, Phase.RUNNING).token == "tok-7"
    again.cancel(answer.ids)
    for job in answer.ids:
        settle(again, job, Phase.FAILED, Phase.ENDED)


def test_previews_start_nothing(bench: Bench) -> None:
    launcher = bench.launcher()
    good = order(bench.deployment, "tok-never", PAUSE)
    assert launcher.problems([good]) == ()
    huge = replace(good, shape=replace(good.shape, memory_mb=1 << 30))
    (said,) = launcher.problems([huge])
    assert said.startswith("pipeline xrf: ")
    assert "a job wants 1073741824 MiB" in said
    assert "signal.pause" in launcher.render(good)
    assert "tok-never" not in {job.token for job in seen(launcher).jobs.values()}
