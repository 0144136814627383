"""One suite for all launchers (`launchers.conformance`): this machine, a fake Slurm (by commands, by pyslurm) and a real one."""

import pathlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.conformance import CHECKS
from cluster_side.scaling.launchers.slurm.pyslurm_backend import Pyslurm
from cluster_side.scaling.launchers.trial import Trial
from tests.slurm import stand_in
from tests.slurm.fake import FakeSlurm
from tests.slurm.sites import PAUSE, site_in

pytestmark = pytest.mark.system
LONG = pytest.mark.long
KINDS = ("local", "fake", *(pytest.param(kind, marks=LONG) for kind in ("pyslurm", "real", "real, pyslurm")))


@pytest.fixture(params=KINDS)
def trial(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
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
        yield Trial(site_in(tmp_path, "slurm", backend=backend), launcher_of)
        cluster.clear()
    elif kind == "local":
        local = Trial(site_in(tmp_path, "local"), launcher_of)
        yield local
        local.end()
    else:
        with FakeSlurm(tmp_path / "slurm"):
            yield Trial(site_in(tmp_path, "slurm", backend=backend), launcher_of)


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_a_launcher(trial: Trial, check: Callable[[Trial], None]) -> None:
    if trial.deployment.site.slurm.backend == "pyslurm":
        assert isinstance(trial.launcher()._backend, Pyslurm)  # type: ignore[attr-defined]
    check(trial)


def test_a_job_that_is_too_large_is_told_in_numbers(trial: Trial) -> None:
    launcher, good = trial.launcher(), trial.order("tok-never", PAUSE)
    (said,) = launcher.problems([replace(good, shape=replace(good.shape, memory_mb=1 << 30))])
    assert said.startswith("pipeline xrf: ")
    assert "a job wants 1073741824 MiB" in said
