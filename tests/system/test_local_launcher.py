"""Jobs as processes: their phases, their logs, a polite end, and how a launcher finds those of the one before it."""

import os
import pathlib
import subprocess
from dataclasses import replace

import pytest

from beamtide import clock
from cluster_side.images import enter
from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.base import Denied, EndCause, JobShape, Phase, Submitted
from cluster_side.scaling.launchers.local import JOB, TOKEN, LocalLauncher
from cluster_side.scaling.launchers.trial import settle
from tests.builders.sites import make_pipeline, make_site
from tests.slurm.sites import PAUSE, order

pytestmark = pytest.mark.system


def test_phases_and_logs(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    launcher = LocalLauncher(deployment)
    greet = "import os; print('hello', os.environ['WHO'], os.environ['BEAMTIDE_JOB'])"
    assert launcher.submit(order(deployment, "a", greet, 2)) == Submitted(("a-0", "a-1"))
    launcher.submit(order(deployment, "b", "raise SystemExit(2)"))
    launcher.submit(order(deployment, "c", PAUSE))
    assert settle(launcher, "a-0", Phase.ENDED).cause is EndCause.DONE
    assert settle(launcher, "b-0", Phase.FAILED).cause is EndCause.CODE
    assert settle(launcher, "c-0", Phase.RUNNING).token == "c"
    assert (tmp_path / "logs/beamtide-test-xrf-a-1.log").read_text() in ("", "hello me & my $HOME a-1\n")
    settle(launcher, "a-1", Phase.ENDED)
    assert (tmp_path / "logs/beamtide-test-xrf-a-1.log").read_text() == "hello me & my $HOME a-1\n"
    launcher.cancel(["c-0", "a-0", "never-was"])
    assert settle(launcher, "c-0", Phase.FAILED).cause is EndCause.CANCELLED


def test_a_program_that_is_not_there_is_one_sentence_and_nothing_runs(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    nowhere = replace(order(deployment, "t", PAUSE), argv=("/nowhere/at/all",))
    answer = LocalLauncher(deployment).submit(nowhere)
    assert isinstance(answer, Denied)
    assert answer.reason.startswith("cannot start a job for pipeline xrf: No such file")


def test_jobs_of_a_launcher_before_are_found_again(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    first = LocalLauncher(deployment)
    first.submit(order(deployment, "a", f"print('up', flush=True); {PAUSE}"))
    log = deployment.site.state / "logs/beamtide-test-xrf-a-0.log"
    while not log.exists() or not log.read_text():  # a process that is just becoming another one shows no environment
        clock.pause(0.005)
    second = LocalLauncher(deployment)
    assert settle(second, "a-0", Phase.RUNNING).token == "a"
    assert not LocalLauncher(make_site(tmp_path / "elsewhere")).look().jobs  # type: ignore[union-attr]
    second.cancel(["a-0"])
    settle(first, "a-0", Phase.FAILED)
    settle(second, "a-0", Phase.ENDED)


def test_a_job_that_is_still_a_script_is_found_too(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    script = f"read -r _; exec true -c {deployment.file}"
    environment = os.environ | {JOB: "a-0", TOKEN: "a"}
    with subprocess.Popen(["bash", "-c", script], env=environment, stdin=subprocess.PIPE, start_new_session=True) as process:
        launcher = LocalLauncher(deployment)
        assert settle(launcher, "a-0", Phase.RUNNING).token == "a"
        process.communicate(b"\n")
    settle(launcher, "a-0", Phase.ENDED)


def test_a_job_does_not_outlive_us(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    listen = "import os; from beamtide.component.parent_death import die_with; die_with(int(os.environ['BEAMTIDE_PARENT']), 15)"
    if not (child := os.fork()):
        launcher = LocalLauncher(deployment)
        launcher.submit(order(deployment, "a", f"{listen}; print('up', flush=True); signal.pause()"))
        log = deployment.site.state / "logs/beamtide-test-xrf-a-0.log"
        while not log.exists() or not log.read_text():
            clock.pause(0.005)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    end = clock.monotonic() + 10
    while LocalLauncher(deployment).look().jobs and clock.monotonic() < end:  # type: ignore[union-attr]
        clock.pause(0.01)
    assert not LocalLauncher(deployment).look().jobs  # type: ignore[union-attr]


def test_the_site_file_names_the_launcher_and_bad_shapes_are_sentences(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    launcher = launcher_of(deployment)
    assert isinstance(launcher, LocalLauncher)
    wide = replace(order(deployment, "t", PAUSE), shape=JobShape(nodes=2))
    huge = replace(order(deployment, "t", PAUSE), shape=JobShape(memory_mb=1 << 40))
    seeing = replace(order(deployment, "t", PAUSE), shape=JobShape(gpus=1))
    many, much, *blind = launcher.problems([wide, huge, seeing])
    assert ["no NVIDIA driver" in text for text in blind] == ([] if enter.GPU_DRIVER.exists() else [True])
    assert "needs a batch system" in many
    assert "MiB, this machine has" in much
    assert launcher.render(wide).startswith("WHO='me & my $HOME' "), "a shell must take it for an assignment"


def test_sigterm_is_what_a_job_hears(tmp_path: pathlib.Path) -> None:
    deployment = make_site(tmp_path, make_pipeline(), jobs=4)
    launcher = LocalLauncher(deployment)
    polite = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    launcher.submit(order(deployment, "a", polite))
    log = tmp_path / "logs/beamtide-test-xrf-a-0.log"
    end = clock.monotonic() + 10
    while not log.read_text() and clock.monotonic() < end:
        clock.pause(0.005)
    launcher.cancel(["a-0"])
    assert settle(launcher, "a-0", Phase.ENDED).cause is EndCause.DONE
