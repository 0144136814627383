"""From nothing to the first result on a real Slurm, beside what Slurm itself needs to start `true`; and what a submission costs.

The Slurm is that of the tests: four nodes on this machine, with timers as administrators tune them. Where it cannot be had,
there are no rows, and one line says why.
"""

import contextlib
import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

from beamtide import clock
from beamtide.messages.base import PipelineName, TaskId
from beamtide.messages.tasks import InputFile, Task
from benchmarks.measure import Beside, Book, scratch
from cluster_side.scaling.launchers.base import Submitted
from cluster_side.scaling.launchers.slurm.launcher import SlurmLauncher
from tests.slurm.cluster import Cluster, NoSlurm, require
from tests.slurm.field import Field, field_on
from tests.slurm.sites import order, seen, site_in

TIMES = 7
JOBS = 200


def run(book: Book) -> None:
    """Measure on a Slurm that is started for it."""
    with scratch() as name:
        folder = pathlib.Path(name)
        cluster = Cluster(folder / "slurm")
        try:
            require()
            cluster.start()
        except NoSlurm as error:
            print(f"NO REAL SLURM, so nothing was measured on one: {error}")
            return
        os.environ["SLURM_CONF"] = str(cluster.conf)
        try:
            _first_result(book, cluster, folder / "site")
            _submissions(book, cluster, folder / "many")
        finally:
            cluster.stop()


def _first_result(book: Book, cluster: Cluster, folder: pathlib.Path) -> None:
    folder.mkdir()
    ours: list[float] = []
    bare: list[float] = []
    with field_on(cluster, folder) as field:
        _task_to_result(field, 0)  # the page cache is warm
        for number in range(1, TIMES + 1):  # interleaved
            _from_nothing(field, number)
            bare.append(_submit_to_start(cluster, folder / f"true{number}"))
            _from_nothing(field, number)
            ours.append(_task_to_result(field, number))
    floor = Beside("a job that touches a file, submitted with --export=NONE too", bare)
    book.row("zero_to_first_s", ours, "s", "lower", floor=floor)


def _from_nothing(field: Field, number: int) -> None:
    """Wait until nobody knows of a job of ours, and for a phase of the second: slurmctld starts jobs once a second."""
    field.all_gone()
    field.until(lambda: not field.client.jobs().jobs, "an autoscaler that knows of no job")
    phase = (number / TIMES - clock.utc()) % 1.0
    clock.pause(phase)


def _submit_to_start(cluster: Cluster, touched: pathlib.Path) -> float:
    began = clock.monotonic()
    cluster.run("sbatch", "--export=NONE", "-o", "/dev/null", "--wrap", f"touch {shlex.quote(str(touched))}")
    while not touched.exists():
        clock.pause(0.005)
    return clock.monotonic() - began


def _task_to_result(field: Field, number: int) -> float:
    """Return the seconds from handing in a task, with no worker anywhere, to its result."""
    scan = field.start_scan([0.0], told=False)
    pipeline = field.deployment.pipelines["nap"]
    frame = InputFile(root="raw", path=f"{scan.id}.h5", format="hdf5", first=0, last=1, options=dict(pipeline.source.options))
    task = Task(
        id=TaskId(f"{scan.id}/nap/0"),
        scan=scan.id,
        pipeline=PipelineName("nap"),
        modality="nap",
        start=0,
        stop=1,
        inputs=(frame,),
        settings=field.client.put_settings(pipeline),
    )
    began = clock.monotonic()
    field.client.submit([task])
    for status in field.client.watch(scan.id):
        if sum(tally.results for tally in status.tallies):
            return clock.monotonic() - began
    raise AssertionError(f"no result of task {number}")


def _submissions(book: Book, cluster: Cluster, folder: pathlib.Path) -> None:
    folder.mkdir()
    deployment = site_in(folder, partitions=["cpu"])
    launcher = SlurmLauncher(deployment)
    seen(launcher)  # as the autoscaler does before its first order
    issued: list[float] = []
    answered: list[float] = []
    spawned: list[float] = []
    with _timed_sbatch(folder) as calls:
        for number in range(TIMES):
            cluster.clear()
            wanted = replace(order(deployment, f"many-{number}", count=JOBS), env={})
            spawned.append(_spawn())
            began, wall = clock.monotonic(), clock.utc()
            answer = launcher.submit(wanted)
            answered.append(1e3 * (clock.monotonic() - began))
            assert isinstance(answer, Submitted)
            assert len(answer.ids) == JOBS
            issued.append(1e3 * (calls()[-1] - wall))
        assert len(calls()) == TIMES, "one call for all jobs of an order"
    floor = Beside("bash, started and gone", spawned)
    book.row("decision_to_sbatch_ms", issued, "ms", "lower", floor=floor, notes={"jobs": JOBS, "calls": 1})
    book.row("submit_200_jobs_ms", answered, "ms", "lower", floor=floor, notes={"jobs": JOBS, "calls": 1})
    cluster.clear()


def _spawn() -> float:
    began = clock.monotonic()
    subprocess.run(["bash", "-c", ":"], check=True)
    return 1e3 * (clock.monotonic() - began)


@contextlib.contextmanager
def _timed_sbatch(folder: pathlib.Path) -> Iterator[Callable[[], list[float]]]:
    """Put an sbatch before the real one that writes down when it began."""
    command = folder / "bin/sbatch"
    command.parent.mkdir()
    command.write_text(f'#!/bin/bash\necho "$EPOCHREALTIME" >>{folder}/calls\nexec {shutil.which("sbatch")} "$@"\n')
    command.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{command.parent}:{before}"
    try:
        yield lambda: [float(line) for line in (folder / "calls").read_text().split()]
    finally:
        os.environ["PATH"] = before
