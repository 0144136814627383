"""A site on a real Slurm: jobs follow the queue, whatever happens to them; afterwards nothing of ours is left."""

import itertools
import os
import pathlib
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from beamtide import clock
from beamtide.messages.metadata import Scan
from cluster_side.scaling.launchers.base import EndCause, JobOrder, Phase, Submitted
from cluster_side.scaling.launchers.slurm.launcher import SlurmLauncher
from cluster_side.scaling.launchers.slurm.script import TEMPLATES
from tests.slurm.cluster import Cluster
from tests.slurm.field import Field, field_on
from tests.slurm.sites import order, settle, site_in
from tests.system.deployments import pids

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]
CAP = 8
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"


@pytest.fixture(scope="module")
def stubborn(real_slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[SlurmLauncher, str]:
    """A job of another site, on a node of its own, that hears nothing and runs into its walltime of a minute."""
    deployment = site_in(tmp_path_factory.mktemp("stubborn"), look_every=5, partitions=["apart"])
    launcher = SlurmLauncher(deployment)
    wanted = order(deployment, "tok-s", STUBBORN)
    answer = launcher.submit(short(wanted, 60))
    assert isinstance(answer, Submitted)
    return launcher, answer.ids[0]


def short(wanted: JobOrder, seconds: int) -> JobOrder:
    return replace(wanted, shape=replace(wanted.shape, walltime_s=seconds))


@pytest.fixture(scope="module")
def field(real_slurm: Cluster, stubborn: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """Jobs go to the partition whose jobs give way to others."""
    with field_on(real_slurm, tmp_path_factory.mktemp("field"), partitions="low", jobs=CAP) as one:
        yield one


def at_work(field: Field, count: int = 60, nap: float = 0.3) -> Scan:
    """Start a scan and wait until two jobs are at work on it."""
    scan = field.start_scan([nap] * count)
    field.until(lambda: len(field.jobs("RUNNING")) >= 2 and field.done(scan) >= 2, "two jobs at work")
    return scan


def test_a_burst_of_500_tasks(field: Field) -> None:
    field.finish(field.start_scan([0.02] * 500), 240)
    assert max(field.seen) > 1


def test_jobs_that_are_cancelled(field: Field) -> None:
    scan = at_work(field)
    field.cluster.run("scancel", *field.jobs("RUNNING")[:2])
    field.finish(scan)


def test_jobs_that_give_way_to_others(field: Field) -> None:
    scan = at_work(field)
    field.cluster.run("sbatch", "-p", "cpu", "-N4", "--exclusive", "-J", "other", "-o", "/dev/null", "--wrap", "sleep 2")
    field.until(lambda: field.cluster.run("squeue", "-h", "-t", "PREEMPTED", f"--name={field.name}"), "a job that gave way")
    field.finish(scan)


def test_a_node_that_dies(field: Field) -> None:
    scan = at_work(field)
    node = field.cluster.run("squeue", "-h", "-t", "RUNNING", f"--name={field.name}", "-o", "%N").split()[0]
    field.cluster.kill(f"slurmd-{node}", signal.SIGKILL)
    field.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    field.finish(scan)
    field.cluster.mend()


def test_a_node_that_is_drained(field: Field) -> None:
    scan = at_work(field)
    field.cluster.run("scontrol", "update", "nodename=node1,node2", "state=drain", "reason=test")
    field.finish(scan)
    field.cluster.mend()


def test_a_controller_that_stands_still_and_is_started_again(field: Field) -> None:
    scan = at_work(field, 80)
    field.cluster.kill("slurmctld", signal.SIGSTOP)
    frozen = clock.monotonic()
    field.until(lambda: clock.monotonic() > frozen + 60, "a while", 90)
    field.cluster.kill("slurmctld", signal.SIGKILL)
    field.cluster.start_controller()
    field.cluster.mend()
    field.finish(scan, 120)


def test_an_autoscaler_that_is_killed(field: Field) -> None:
    scan = at_work(field)
    killed = pids(field.host)["autoscaler"]
    os.kill(killed, signal.SIGKILL)
    field.until(lambda: pids(field.host).get("autoscaler", killed) != killed, "another autoscaler")
    field.finish(scan)


def test_a_limit_on_submissions(field: Field) -> None:
    """The jobs that there are do the work; no more are asked for until later."""
    field.all_gone()
    first = field.start_scan([1.5] * 2)
    field.until(lambda: field.jobs("RUNNING") and not field.jobs("PENDING"), "a job at work")
    field.cluster.limit(on=True)
    try:
        second = field.start_scan([0.2] * 40)
        field.until(lambda: "Job violates accounting/QOS policy" in str(field.state()["autoscaler"]), "a refusal")
    finally:
        field.cluster.limit(on=False)
    field.finish(first)
    field.finish(second, 120)


def test_ranks_on_two_nodes(real_slurm: Cluster, tmp_path: pathlib.Path) -> None:
    """The template of ptychography starts every rank, they add up their numbers by MPI, and one that fails ends them all."""
    if "pmi2" not in real_slurm.run("srun", "--mpi=list"):
        pytest.skip("NO PMI2 in this Slurm, which the MPICH of the tests needs: no MPI call was made on two nodes")
    deployment = site_in(tmp_path, mpi="pmi2", partitions=["cpu"])
    launcher = SlurmLauncher(deployment)
    program = (
        "import os; from mpi4py.MPI import COMM_WORLD as all; "
        "print('rank', all.rank, 'of', all.size, os.environ['SLURMD_NODENAME'], all.allreduce(all.rank))"
    )
    answer = launcher.submit(wide(order(deployment, "tok-m", program)))
    assert isinstance(answer, Submitted)
    assert settle(launcher, answer.ids[0], Phase.ENDED, Phase.FAILED, patience=60).cause is EndCause.DONE
    said = sorted(
        line.split() for line in next((tmp_path / "logs").iterdir()).read_text().splitlines() if line.startswith("rank")
    )
    assert [words[1] for words in said] == ["0", "1", "2", "3"]
    assert {words[3] for words in said} == {"4"}
    assert len({words[4] for words in said}) == 2
    assert {words[5] for words in said} == {"6"}
    broken = "import os, time; os.environ['SLURM_PROCID'] == '3' and exit(9); time.sleep(600)"
    answer = launcher.submit(wide(order(deployment, "tok-b", broken)))
    assert isinstance(answer, Submitted)
    assert settle(launcher, answer.ids[0], Phase.ENDED, Phase.FAILED, patience=60).cause is EndCause.CODE


def wide(wanted: JobOrder) -> JobOrder:
    return replace(wanted, modality="ptychography", shape=replace(wanted.shape, nodes=2, ranks=4, cpus=2))


def test_slurm_would_take_every_template(real_slurm: Cluster, tmp_path: pathlib.Path) -> None:
    """By `sbatch --test-only`; what it would not take, and why, is a sentence of Slurm's."""
    deployment = site_in(tmp_path, partitions=["cpu"], gpu_partitions=["gpu"], mpi="pmi2")
    launcher, plain = SlurmLauncher(deployment), order(deployment, "tok-t")
    kinds = {path.name.removesuffix(".sh.j2") for path in TEMPLATES.glob("*.sh.j2")} - {"base"}
    orders = [replace(plain, modality=kind, pipeline=kind) for kind in sorted(kinds)]
    orders.append(replace(wide(plain), shape=replace(wide(plain).shape, gpus=1)))
    assert len(orders) == 5
    assert launcher.problems(orders) == ()
    (said,) = SlurmLauncher(site_in(tmp_path, partitions=["gone"], reservation="over")).problems([plain])
    assert "reservation" in said.lower()
    assert "invalid partition" in said.lower()


def test_afterwards(field: Field) -> None:
    """No job is left, the cap was never exceeded, squeue was called once in five seconds at most."""
    field.finish(field.start_scan([0.3] * 20))
    field.all_gone(120)
    field.until(lambda: len(field.looks()) > 2, "a few looks")
    looks = field.looks()
    assert field.most <= CAP
    assert sum(later - earlier < 4.5 for earlier, later in itertools.pairwise(looks)) <= 1, "after a restart, at once"
    assert len(looks) <= 0.2 * (looks[-1] - looks[0]) + 2


def test_a_job_that_runs_into_its_walltime(stubborn: tuple[SlurmLauncher, str]) -> None:
    launcher, job = stubborn
    assert settle(launcher, job, Phase.FAILED, patience=120).cause is EndCause.TIMEOUT
