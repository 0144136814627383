"""What the autoscaler relies on in a launcher: `check_launcher` tries all of it with real jobs in the real batch system.

Theory: the autoscaler believes a launcher. A job that is started and not shown is started again; one that is shown and is gone
holds its place for ever; one that leases under another name than `Sighting.job` is never seen to work. So each check orders jobs,
looks at them until they are where they must be, and takes everything back.

Clock policy: that of `trial`.
"""

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from cluster_side.scaling.launchers.base import Denied, EndCause, Launcher, Phase, SubmitAnswer, Submitted
from cluster_side.scaling.launchers.trial import PAUSE, POLITE, Trial, seen, trial_site

ODD_WORDS = ("a b", "'", '"', "$(touch /tmp/never)", "`id`", "*", "\\", "--export=ALL", "ü", "")
OVER = (Phase.ENDED, Phase.FAILED)
WHO = (
    "import os, signal; from cluster_side.worker.job.allocation import job_name; "
    "print(os.environ['WHO']); print(job_name(os.environ, 'nobody'), flush=True); signal.pause()"
)


def check_launcher(
    kind: type[Launcher], folder: pathlib.Path, settings: Mapping[str, Any] | None = None, patience: float = 20.0
) -> None:
    """Try a launcher, with its settings, in an empty folder; AssertionError says what the autoscaler cannot rely on.

    `patience`: seconds within which the batch system starts a job, and ends one that is cancelled.
    """
    for check in CHECKS:
        place = folder / check.__name__
        place.mkdir(parents=True)
        trial = Trial(trial_site(place, settings or {}), kind, patience)
        try:
            check(trial)
        except Exception as error:  # no verb may raise, whatever the batch system did
            with contextlib.suppress(Exception):
                trial.end()
            said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{check.__name__}: {said}") from error
        trial.end()


def states_what_it_is(trial: Trial) -> None:
    """Settings, the time of a first start, whether jobs outlive the autoscaler, and the command that starts Beamtide."""
    launcher = trial.launcher()
    assert issubclass(launcher.settings, BaseModel), "settings must be a pydantic model"
    assert launcher.first_start > 0, f"first_start is {launcher.first_start}, it must be more than 0 s"
    assert isinstance(launcher.jobs_outlive_us, bool), "jobs_outlive_us must be True or False"
    assert launcher.beamtide, "beamtide must be the words of a command"
    assert all(isinstance(word, str) for word in launcher.beamtide), "beamtide must be a tuple of words"
    assert launcher.cpus_per_node >= 0, f"cpus_per_node is {launcher.cpus_per_node}"


def runs_an_array(trial: Trial) -> None:
    """Each job of an order has an id of its own, carries its token, and is shown when it has ended."""
    launcher = trial.launcher()
    ids = _ids(launcher.submit(trial.order("tok-1", "print('ran')", count=3)))
    assert len(set(ids)) == 3, f"three jobs must have three ids: {ids}"
    for job in ids:
        sighting = trial.settle(launcher, job, Phase.ENDED)
        assert sighting.id == job, f"job {job} is shown under the id {sighting.id}"
        assert (sighting.token, sighting.cause) == ("tok-1", EndCause.DONE), f"a job that ended well is {sighting}"


def names_jobs_as_their_workers_do(trial: Trial) -> None:
    """A job has the environment of its order, and leases under the name under which it is shown; its log is where people look."""
    launcher = trial.launcher()
    ids = _ids(launcher.submit(trial.order("tok-1", WHO, count=2)))
    for job in ids:
        shown = trial.settle(launcher, job, Phase.RUNNING).job
        who, name = trial.log_of(job, "\n.*\n").splitlines()[-2:]
        assert who == "me & my $HOME", f"the environment of the order arrived as {who!r}"
        assert name == shown, f"a worker of job {shown} would lease as {name}; start it with BEAMTIDE_JOB={shown}"


def passes_words_as_they_are(trial: Trial) -> None:
    """No shell reads what stands in a command."""
    launcher = trial.launcher()
    (job,) = _ids(launcher.submit(trial.order("tok-1", "import sys; print(sys.argv[2:])", words=ODD_WORDS)))
    trial.settle(launcher, job, Phase.ENDED)
    arrived = trial.log_of(job).splitlines()[-1]
    assert arrived == str(list(ODD_WORDS)), f"{list(ODD_WORDS)} arrived as {arrived}"


def says_how_jobs_failed(trial: Trial) -> None:
    """A job that fails is FAILED for its code; one whose program is not there is denied, or fails."""
    launcher = trial.launcher()
    for job in _ids(launcher.submit(trial.order("tok-1", "raise SystemExit(3)", count=2))):
        cause = trial.settle(launcher, job, *OVER).cause
        assert cause is EndCause.CODE, f"the exit code 3 is shown as {cause}"
    answer = launcher.submit(replace(trial.order("tok-2"), argv=("/nowhere/at/all",)))
    if not isinstance(answer, Denied):
        phase = trial.settle(launcher, _ids(answer)[0], *OVER).phase
        assert phase is Phase.FAILED, f"a program that is not there is shown as {phase}"


def tells_what_a_job_said_last(trial: Trial) -> None:
    """The reason of a job that failed ends with the last line of its log that Beamtide wrote, without what terminals obey."""
    launcher = trial.launcher()
    for token, after in (("tok-1", ""), ("tok-2", "srun: error: n1: task 0: Exited with exit code 69")):
        words = f"first\nbeamtide job: \x1b[31mcannot read /raw\n\n{after}"
        (job,) = _ids(launcher.submit(trial.order(token, f"raise SystemExit({words!r})")))
        reason = trial.settle(launcher, job, Phase.FAILED).reason
        assert reason.endswith("beamtide job: cannot read /raw"), f"the reason is {reason!r}; `job_log.last_line` reads a log"
        assert "first" not in reason, f"the reason is all of the log: {reason!r}"


def cancels_what_it_is_told_and_nothing_else(trial: Trial) -> None:
    """Jobs hear SIGTERM; an id that is gone, or never was, is no mistake."""
    launcher = trial.launcher()
    ids = _ids(launcher.submit(trial.order("tok-1", POLITE, count=3)))
    for job in ids:
        trial.log_of(job)  # up, and listening
    first, second, third = ids
    launcher.cancel([first, second])
    launcher.cancel([])
    launcher.cancel(["never-was"])
    for job in (first, second):
        trial.settle(launcher, job, *OVER)
    (later,) = _ids(launcher.submit(trial.order("tok-2", POLITE)))
    trial.log_of(later)  # until this one is up, the third would have ended if it had been told to
    assert trial.settle(launcher, third, Phase.RUNNING).nodes, "a job that runs says where: nodes"
    launcher.cancel([first, third, later])
    for job in (third, later):
        trial.settle(launcher, job, *OVER)


def finds_jobs_again_by_their_token(trial: Trial) -> None:
    """A new launcher, after a crash of the autoscaler, sees the jobs of the one before, and may cancel them."""
    wanted, first = trial.order("tok-7", PAUSE, count=2), trial.launcher()
    ids, again = _ids(first.submit(wanted)), trial.launcher()
    for job in ids:
        found = trial.settle(again, job, Phase.RUNNING)
        assert found.token == wanted.token, f"job {job} was found with the token {found.token!r}"
    again.cancel(ids)
    for job in ids:
        trial.settle(again, job, *OVER)


def previews_start_nothing(trial: Trial) -> None:
    """`render` shows what would be run, and `problems` what is wrong with it, before anything is submitted."""
    launcher, never = trial.launcher(), trial.order("tok-never", PAUSE)
    assert launcher.problems([never]) == (), f"a small job has problems here: {launcher.problems([never])}"
    wide = launcher.problems([replace(never, shape=replace(never.shape, memory_mb=1 << 40, nodes=1 << 20, ranks=1 << 20))])
    assert all(said.strip() for said in wide), "a problem is a sentence"
    assert "signal.pause" in launcher.render(never), "render shows the command of the job"
    assert "tok-never" not in {job.token for job in seen(launcher, trial.patience).jobs.values()}, "a preview started a job"


CHECKS: tuple[Callable[[Trial], None], ...] = (
    states_what_it_is,
    runs_an_array,
    names_jobs_as_their_workers_do,
    passes_words_as_they_are,
    says_how_jobs_failed,
    tells_what_a_job_said_last,
    cancels_what_it_is_told_and_nothing_else,
    finds_jobs_again_by_their_token,
    previews_start_nothing,
)


def _ids(answer: SubmitAnswer) -> tuple[str, ...]:
    assert isinstance(answer, Submitted), f"the order was not accepted: {answer}"
    return answer.ids
