"""A Slurm that misbehaves: whatever it does, no job is doubled, lost, or taken for gone."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from beamtide import clock
from beamtide.config.slurm import Elsewhere
from beamtide.errors import BadInput
from cluster_side.scaling.launchers import launcher_of
from cluster_side.scaling.launchers.base import Denied, EndCause, Phase, Seen, Submitted, Unclear, Unseen
from cluster_side.scaling.launchers.slurm.commands import Commands
from cluster_side.scaling.launchers.slurm.launcher import SlurmLauncher
from cluster_side.scaling.launchers.slurm.vanished_jobs import CONFIRM_AFTER, VanishedJobs
from tests.slurm.fake import FakeSlurm
from tests.slurm.sites import PAUSE, order, seen, settle, site_in, wait_for
from tests.waits import wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def slurm(tmp_path: pathlib.Path) -> Iterator[FakeSlurm]:
    with FakeSlurm(tmp_path / "slurm") as fake:
        yield fake


def test_a_time_out_after_accepting_is_unclear_and_the_token_finds_the_jobs(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path, patience=1.0)
    launcher = SlurmLauncher(deployment)
    slurm.next("sbatch", "accepted, then silent", 30)
    answer = launcher.submit(order(deployment, "tok-9", PAUSE, count=2))
    assert isinstance(answer, Unclear)
    found = wait_for(launcher, lambda listing: (isinstance(listing, Seen) and listing.jobs) or None, "the jobs")
    assert {job.token for job in found.values()} == {"tok-9"}
    assert len(found) == 2
    assert len(slurm.calls("sbatch")) == 1


@pytest.mark.parametrize(("fault", "cause"), [("qos", EndCause.LIMIT), ("down", EndCause.DOWN), ("account", EndCause.RULES)])
def test_a_refusal_is_certain_and_says_why(slurm: FakeSlurm, tmp_path: pathlib.Path, fault: str, cause: EndCause) -> None:
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    slurm.next("sbatch", fault)
    answer = launcher.submit(order(deployment, "tok-1"))
    assert isinstance(answer, Denied)
    assert answer.cause is cause
    assert "Slurm says: " in answer.reason
    assert not slurm.state()["jobs"]


def test_a_broken_connection_is_no_refusal(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    slurm.next("sbatch", "socket")
    assert isinstance(SlurmLauncher(site_in(tmp_path)).submit(order(site_in(tmp_path), "tok-1")), Unclear)


def test_jobs_that_were_accepted_and_vanished_are_simply_not_there(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    slurm.next("sbatch", "vanish")
    answer = launcher.submit(order(deployment, "tok-1", PAUSE))
    assert isinstance(answer, Submitted)
    first, second = seen(launcher), seen(launcher)
    assert answer.ids[0] not in first.jobs
    assert answer.ids[0] not in second.jobs


@pytest.mark.parametrize(("fault", "argument"), [("empty", None), ("truncated", 6), ("truncated", 1), ("down", None)])
def test_a_bad_answer_of_squeue_is_unknown(slurm: FakeSlurm, tmp_path: pathlib.Path, fault: str, argument: object) -> None:
    deployment = site_in(tmp_path, patience=30)
    launcher = SlurmLauncher(deployment)
    answer = launcher.submit(order(deployment, "tok-1", PAUSE, count=3))
    assert isinstance(answer, Submitted)
    settle(launcher, answer.ids[2], Phase.RUNNING)
    slurm.next("squeue", fault, argument)
    said = wait_for(launcher, lambda listing: listing if isinstance(listing, Unseen) else None, "an unknown picture")
    assert said.reason
    assert set(seen(launcher).jobs) == set(answer.ids)


@pytest.mark.long
def test_a_slow_squeue_stops_nobody(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    launcher = SlurmLauncher(site_in(tmp_path, patience=30))
    seen(launcher)
    slurm.next("squeue", "slow", 4)
    longest, listing, end = 0.0, launcher.look(), clock.monotonic() + 20
    while isinstance(listing, Seen) and clock.monotonic() < end:
        began = clock.monotonic()
        listing = launcher.look()
        longest = max(longest, clock.monotonic() - began)
        clock.pause(0.02)
    assert longest < 1.0
    assert isinstance(listing, Unseen)
    assert "Slurm has not answered for" in listing.reason
    seen(launcher)


def test_a_squeue_that_hangs_is_killed(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    launcher = SlurmLauncher(site_in(tmp_path, patience=0.5))
    slurm.next("squeue", "slow", 30)
    reason = wait_for(launcher, lambda listing: listing.reason if "within" in getattr(listing, "reason", "") else None, "an end")
    assert reason == "squeue did not come back within 0.5 s"


def test_unknown_states_and_held_jobs_live(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    slurm.next("sbatch", "held")
    answer = launcher.submit(order(deployment, "tok-1", PAUSE))
    assert isinstance(answer, Submitted)
    assert settle(launcher, answer.ids[0], Phase.PENDING).reason == "JobHeldUser"
    slurm.next("squeue", "state", "FLYING")
    assert settle(launcher, answer.ids[0], Phase.UNKNOWN).reason == "FLYING"


def test_a_job_that_is_requeued_with_the_same_id_leases_under_another_name(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    answer = launcher.submit(order(deployment, "tok-1", PAUSE, count=2))
    assert isinstance(answer, Submitted)
    job = answer.ids[1]
    before = settle(launcher, job, Phase.RUNNING).job
    slurm.requeue(job)
    wait_for(launcher, lambda listing: (isinstance(listing, Seen) and listing.jobs[job].restarts) or None, "a restart")
    assert settle(launcher, job, Phase.RUNNING).job == f"{before}+1"


def test_an_array_is_never_larger_than_this_slurm_takes(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    slurm.change(max_array=11)
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    answer = launcher.submit(order(deployment, "tok-1", count=11))
    assert isinstance(answer, Denied)
    assert answer.cause is EndCause.LIMIT
    assert answer.reason == "11 jobs are more than one array of this Slurm holds: 10 (MaxArraySize)"
    assert not slurm.calls("sbatch")
    assert isinstance(launcher.submit(order(deployment, "tok-2", count=10)), Submitted)


def test_places_are_tried_in_turn(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    other = Elsewhere(cluster="solaris", partitions=("solcpu",)).model_dump()
    deployment = site_in(tmp_path, reservation="gone", partitions=["allcpu"], elsewhere=[other], cluster="maxwell")
    launcher = SlurmLauncher(deployment)
    slurm.next("sbatch", "reservation")
    slurm.next("sbatch", "partition")
    answer = launcher.submit(order(deployment, "tok-1", PAUSE, count=2))
    assert isinstance(answer, Submitted)
    assert [job.partition(";")[2] for job in answer.ids] == ["solaris", "solaris"]
    words = [call[2] for call in slurm.calls("sbatch")]
    assert ["--reservation=gone" in call for call in words] == [True, False, False]
    assert all("--comment=tok-1" in call for call in words)
    assert "--clusters=maxwell,solaris" in (wait_for(launcher, lambda _: slurm.calls("squeue") or None, "a look"))[0][2]


def test_refused_everywhere_names_every_place(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path, reservation="gone", partitions=["allcpu"])
    slurm.next("sbatch", "reservation")
    slurm.next("sbatch", "qos")
    answer = SlurmLauncher(deployment).submit(order(deployment, "tok-1"))
    assert isinstance(answer, Denied)
    assert answer.cause is EndCause.LIMIT
    assert "reservation gone, partition allcpu: Slurm says: Requested reservation is invalid" in answer.reason
    slurm.next("sbatch", "partition")
    slurm.next("sbatch", "partition")
    (said,) = SlurmLauncher(deployment).problems([order(deployment, "tok-1")])
    assert said.startswith("pipeline xrf: reservation gone, partition allcpu: Slurm says: Invalid partition name specified; see")


@pytest.mark.long
def test_one_command_per_verb_and_at_most_one_look_per_five_seconds(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path, look_every=5)
    launcher = SlurmLauncher(deployment)
    answer = launcher.submit(order(deployment, "tok-1", PAUSE, count=5))
    assert isinstance(answer, Submitted)
    first = seen(launcher)
    end = clock.monotonic() + 1.5
    while clock.monotonic() < end:
        assert launcher.look() is first
        clock.pause(0.02)
    launcher.cancel(answer.ids)
    wait_until(lambda: slurm.calls("scancel"), "a call of scancel")
    assert [len(slurm.calls(command)) for command in ("sbatch", "squeue", "scancel")] == [1, 1, 1]


def test_what_the_shell_exports_for_slurm_does_not_reach_its_commands(
    slurm: FakeSlurm, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = ("SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SBATCH_PARTITION", "SQUEUE_FORMAT", "DISPLAY", "LD_PRELOAD")
    for name in foreign:
        monkeypatch.setenv(name, "")
    SlurmLauncher(site_in(tmp_path)).submit(order(site_in(tmp_path), "tok-1"))
    (call,) = slurm.calls("sbatch")
    assert not set(foreign) & set(call[3])
    assert "PATH" in call[3]
    assert "--export=NONE" in call[2]


def test_accounting_is_asked_for_what_is_missing_twice(slurm: FakeSlurm, tmp_path: pathlib.Path) -> None:
    deployment = site_in(tmp_path)
    launcher = SlurmLauncher(deployment)
    answer = launcher.submit(order(deployment, "tok-1", PAUSE, count=3))
    assert isinstance(answer, Submitted)
    for job in answer.ids:
        settle(launcher, job, Phase.RUNNING)
    slurm.forget(answer.ids[0])
    assert settle(launcher, answer.ids[0], Phase.UNKNOWN).reason == "squeue does not show it"
    wait_for(launcher, lambda listing: (isinstance(listing, Seen) and answer.ids[0] not in listing.jobs) or None, "its end")
    (call,) = slurm.calls("sacct")
    assert f"--jobs={answer.ids[0]}" in call[2]


def test_without_slurm_one_sentence(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="launcher: slurm needs sbatch, squeue, scancel on the PATH of this host"):
        launcher_of(site_in(tmp_path))


def test_a_pyslurm_that_does_not_load_gives_way_to_the_commands(
    slurm: FakeSlurm, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyslurm", None)  # what an import of it finds
    launcher = SlurmLauncher(site_in(tmp_path, backend="pyslurm"))
    assert isinstance(launcher._backend, Commands)
    assert capsys.readouterr().out.count("pyslurm does not load, so Slurm's commands do the work") == 1


def test_most_jobs_gone_at_once_is_doubted_for_a_minute_then_believed() -> None:
    from cluster_side.scaling.launchers.base import Sighting

    jobs = {str(number): Sighting(str(number), "t", Phase.RUNNING) for number in range(4)}
    recall = VanishedJobs()
    assert recall.judge(Seen(jobs), 0.0) == Seen(jobs)
    assert isinstance(recall.judge(Seen({}), 5.0), Unseen)
    assert isinstance(recall.judge(Seen({}), 5.0 + CONFIRM_AFTER - 1), Unseen)
    believed = recall.judge(Seen({}), 5.0 + CONFIRM_AFTER)
    assert isinstance(believed, Seen)
    assert {job.phase for job in believed.jobs.values()} == {Phase.UNKNOWN}
    assert recall.judge(Seen({}), 70.0) == Seen(
        {job: replace(jobs[job], phase=Phase.UNKNOWN, reason="squeue does not show it") for job in jobs}
    )
    assert recall.missing() == tuple(jobs)
    recall.explain({"1": (Phase.FAILED, EndCause.NODE), "2": (Phase.UNKNOWN, None)}, recall.missing())
    last = recall.judge(Seen({}), 75.0)
    assert isinstance(last, Seen)
    assert {job: sighting.cause for job, sighting in last.jobs.items()} == {"1": EndCause.NODE}
    assert recall.judge(Seen({}), 80.0) == Seen({})


def test_a_job_that_comes_back_was_never_gone() -> None:
    from cluster_side.scaling.launchers.base import Sighting

    jobs = {str(number): Sighting(str(number), "t", Phase.RUNNING) for number in range(4)}
    recall = VanishedJobs()
    recall.judge(Seen(jobs), 0.0)
    without = recall.judge(Seen({job: jobs[job] for job in "123"}), 5.0)
    assert isinstance(without, Seen)
    assert without.jobs["0"].phase is Phase.UNKNOWN
    assert recall.judge(Seen(jobs), 10.0) == Seen(jobs)
    assert recall.missing() == ()
