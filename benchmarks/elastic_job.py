"""Two prices that need real processes: what a job costs beside its tasks, and how long a decision takes to reach `sbatch`.

The job is one of the local launcher, asked for as the autoscaler asks; its slot time is from being asked for until its process is
gone, so that start, forks, storing and exit count as not computing. Its tasks sleep instead of burning a core, so that a busy
machine does not make them longer. The `sbatch` is the tests' stand-in; when it began is written down before it does anything.
"""

import os
import pathlib
import sys

import h5py
import numpy as np

from beamline_side.hosts.all_in_one import Host
from beamtide import clock
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.machine import Call, Heard, Keep, Tick, link
from beamtide.messages.base import PipelineName, ScanId, Seconds
from beamtide.messages.metadata import Scan
from beamtide.messages.scaling import BufferGauge
from benchmarks.measure import Book, scratch
from cluster_side.scaling import autoscaler
from cluster_side.scaling.jobs.batch_calls import Looked, Start
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launcher_thread import LauncherThread
from cluster_side.scaling.launchers.base import Phase, Seen
from cluster_side.scaling.launchers.local import LocalLauncher
from cluster_side.scaling.launchers.slurm.launcher import SlurmLauncher
from cluster_side.scaling.orders import order_for
from cluster_side.scaling.scaling_loop import ScalerMachine
from cluster_side.scaling.state_file import StateFile
from tests.slurm import nap
from tests.slurm.fake import FakeSlurm
from tests.slurm.sites import site_in

TASKS, TASK_SECONDS = 30, 2.0
ROUNDS = 30
PATIENCE = 60.0
SITE = """
site: bench
roots: {{raw: "{folder}/raw", processed: "{folder}/processed"}}
state: "{folder}/state"
pipelines: [nap.yaml]
scaling: {{caps: {{jobs: 0, node_hours_per_day: 24}}}}
"""
NAP = """
pipeline: nap
modality: nap
source: {kind: files, match: "{scan}.h5", options: {seconds: seconds}, frames_per_task: 1}
write: [hdf5]
"""


def run(book: Book) -> None:
    """Measure both."""
    with scratch() as folder:
        job_efficiency(book, pathlib.Path(folder))
    with scratch() as folder:
        decision_to_submit(book, pathlib.Path(folder))


def job_efficiency(book: Book, folder: pathlib.Path) -> None:
    """Let one job do its tasks; all services run, and the autoscaler may start nothing."""
    path = str(nap.install(folder / "python"))
    sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = path
    (folder / "raw").mkdir()
    (folder / "processed").mkdir()
    (folder / "site.yaml").write_text(SITE.format(folder=folder))
    (folder / "nap.yaml").write_text(NAP)
    deployment = site.load(folder / "site.yaml")
    scan = Scan(id=ScanId("scan_00001"), shape=(TASKS,))
    with h5py.File(deployment.site.roots.raw / f"{scan.id}.h5", "w") as file:
        file["seconds"] = np.full(TASKS, TASK_SECONDS)
    with Host(deployment), Client(deployment) as client:
        client.scan_started(scan)
        client.scan_ended(scan.id)
        while client.gauge("nap").ready < TASKS:
            clock.pause(0.05)
        lived = _lived(deployment)
        assert client.gauge("nap").done == TASKS, "the job did not do its tasks"
    notes = {"tasks": TASKS, "task_s": TASK_SECONDS, "slots": 1, "bar": 0.9, "overhead_s": round(lived - TASKS * TASK_SECONDS, 2)}
    book.row("job_efficiency", [TASKS * TASK_SECONDS / lived], "share", "higher", notes=notes)


def _lived(deployment: Deployment) -> float:
    """Return the seconds from asking for a job until it is gone."""
    launcher, end = LocalLauncher(deployment), clock.monotonic() + 2 * TASKS * TASK_SECONDS
    start = Start(Order("bench-1", "nap", 1, 1, clock.monotonic()), TASKS, 600, ())
    began = clock.monotonic()
    launcher.submit(order_for(deployment, launcher, start))
    while clock.monotonic() < end:
        listing = launcher.look()
        assert isinstance(listing, Seen)
        if all(job.phase is Phase.ENDED for job in listing.jobs.values()):
            return clock.monotonic() - began
        clock.pause(0.02)
    raise AssertionError(f"the job did not end; see {deployment.site.state}/logs")


def decision_to_submit(book: Book, folder: pathlib.Path) -> None:
    """Let queues jump, each before a fresh autoscaler with nothing else under way, and read when sbatch began."""
    with FakeSlurm(folder / "slurm") as slurm:
        real, issued = slurm.folder / "bin/sbatch", folder / "issued"
        real.rename(slurm.folder / "bin/sbatch.real")
        real.write_text(f'#!/bin/bash\necho "$EPOCHREALTIME" >>{issued}\nexec {real}.real "$@"\n')
        real.chmod(0o755)
        deployment = site_in(folder)
        launcher = SlurmLauncher(deployment)
        taken = [_round(deployment, launcher, issued, number) for number in range(ROUNDS + 1)]
    book.sync(folder)
    notes = {"bar": 20, "journal": "synced before", "sbatch": "stand-in", "first, asks for MaxArraySize too": round(taken[0], 1)}
    book.row("decision_to_submit_ms", taken[1:], "ms", "lower", notes=notes)


def _round(deployment: Deployment, launcher: SlurmLauncher, issued: pathlib.Path, number: int) -> float:
    state_file = StateFile(deployment.site.state / f"autoscaler{number}")
    planner = autoscaler.planner_for(deployment, launcher, {}, f"us{number}", state_file.fence)
    machine = ScalerMachine(planner, 0.5, 5.0)
    calls = LauncherThread(deployment, launcher)
    machine.handle(Looked(Seen({})), Seconds(clock.monotonic()))
    calls.open()
    try:
        gauge = BufferGauge(pipeline=PipelineName("xrf"), ready=100, service_time=2.0)
        began, end = clock.utc(), clock.monotonic() + PATIENCE
        machine.handle(Heard(link("buffer.xrf"), gauge), Seconds(clock.monotonic()))
        effects = machine.handle(Tick(), Seconds(clock.monotonic()))
        for effect in effects:
            if isinstance(effect, Keep):
                state_file.keep(effect.table, effect.key, effect.body)
        state_file.commit()
        for effect in effects:
            if isinstance(effect, Call):
                calls.call(effect)
        while not issued.exists() or issued.read_text().count("\n") <= number:
            assert clock.monotonic() < end, "sbatch was not called"
            clock.pause(0.001)
        return 1e3 * (float(issued.read_text().split()[number]) - began)
    finally:
        calls.close()
        state_file.close()
