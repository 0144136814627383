"""A whole site on the real Slurm: services and autoscaler here, jobs on the nodes; scans whose tasks nap."""

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h5py
import numpy as np

from beamline_side.hosts.all_in_one import Host
from beamtide import clock
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import BeamtideError
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import layout
from tests.slurm.cluster import Cluster
from tests.slurm.nap import install

SITE = """
site: p06
beamtime: "11010000"
roots: {{raw: "{folder}/raw", processed: "{folder}/processed"}}
state: "{folder}/state"
pipelines: [nap.yaml]
launcher: slurm
slurm: {{partitions: [{partitions}], cpus_per_node: 8, beamtide: [env, "PYTHONPATH={path}", "{python}", -m, beamtide]}}
scaling: {{caps: {{jobs: {jobs}, node_hours_per_day: 24}}, tick: 0.3, idle_exit: 3}}
leases: {{ttl: 5, beat: 1}}
spool: {{reserve: 4, durability: relaxed}}
"""
NAP = """
pipeline: nap
modality: nap
source: {{kind: files, match: "{{scan}}.h5", options: {{seconds: seconds}}, frames_per_task: 1}}
job: {{slots: {slots}}}
write: [hdf5]
"""


@dataclass
class Field:
    """The site, its Slurm, and what was seen of its jobs."""

    cluster: Cluster
    deployment: Deployment
    host: Host
    client: Client
    most: int = 0
    """The most jobs of ours that lived at the same time."""
    seen: list[int] = field(default_factory=list)
    scans: int = 0

    @property
    def name(self) -> str:
        """The name of our jobs."""
        return "beamtide-p06-11010000-nap"

    def start_scan(self, seconds: list[float], told: bool = True) -> Scan:
        """Write the file of a scan, one task per number, and say (if `told`) that it is over."""
        self.scans += 1
        scan = Scan(id=ScanId(f"scan_{self.scans:05d}"), shape=(len(seconds),))
        raw = self.deployment.site.roots.raw / f"{scan.id}.h5"
        with h5py.File(raw.with_suffix(".part"), "w") as file:
            file["seconds"] = np.array(seconds)
        raw.with_suffix(".part").rename(raw)
        if told:
            self.client.scan_started(scan)
            self.client.scan_ended(scan.id)
        return scan

    def jobs(self, *states: str) -> list[str]:
        """Return the ids of our living jobs, in these states or any; note how many there were."""
        lines = [line.split() for line in self.cluster.queue(f"--name={self.name}")]
        living = [line for line in lines if line[1] in ("PENDING", "RUNNING")]
        self.most = max(self.most, len(living))
        self.seen.append(len(living))
        return [line[0] for line in lines if not states or line[1] in states]

    def until(self, true: Callable[[], object], what: str, patience: float = 120.0) -> None:
        """Keep the components alive until something is true."""
        end = clock.monotonic() + patience
        while True:
            with contextlib.suppress(BeamtideError):  # a service is being started again
                self.host.tend()
                if true():
                    return
            assert clock.monotonic() < end, f"never: {what}; jobs: {self.cluster.queue()}; components: {self.state()}"
            clock.pause(0.1)

    def state(self) -> dict[str, object]:
        """Return what the components say, for a test that failed."""
        return {report.card.name: (report.why, report.progress) for report in self.client.topology()}

    def done(self, scan: Scan) -> int:
        """Return how many tasks of a scan have their verdict."""
        return sum(tally.results + tally.empty + tally.abandoned for tally in self.client.status(scan.id).tallies)

    def finish(self, scan: Scan, patience: float = 120.0) -> None:
        """Wait for the result file, and look that every index is there, once, as a result."""
        path = layout.result_file(self.deployment.site.roots.processed, scan.id, "nap")
        self.until(lambda: self.jobs() is not None and path.exists(), f"the results of {scan.id}", patience)
        with h5py.File(path) as file:
            assert len(file["entry/holes/start"]) == 0
            start, stop = (file[f"entry/process/tasks/{name}"][()] for name in ("start", "stop"))
        covered = np.concatenate([np.arange(*pair) for pair in zip(start, stop, strict=True)])
        np.testing.assert_array_equal(np.sort(covered), np.arange(scan.shape[0]))

    def looks(self) -> list[float]:
        """Return when the autoscaler called squeue."""
        return [float(line) for line in (self.deployment.file.parent / "looks").read_text().split()]

    def all_gone(self, patience: float = 120.0) -> None:
        """Wait until no job of ours is left."""
        self.until(lambda: not self.jobs(), "an end of all jobs", patience)


@contextlib.contextmanager
def field_on(cluster: Cluster, folder: pathlib.Path, partitions: str = "cpu", jobs: int = 12, slots: int = 2) -> Iterator[Field]:
    """Start a site; its jobs are cancelled at the end, whatever happened."""
    path = install(folder / "python")
    for name in ("raw", "processed"):
        (folder / name).mkdir()
    values = {"folder": folder, "python": sys.executable, "path": path, "partitions": partitions, "jobs": jobs}
    (folder / "site.yaml").write_text(SITE.format(**values))
    (folder / "nap.yaml").write_text(NAP.format(slots=slots))
    _count_squeue(folder)
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PATH")}
    os.environ |= {"PYTHONPATH": str(path), "PATH": f"{folder}/bin:{before['PATH']}"}
    sys.path.insert(0, str(path))
    try:
        deployment = site.load(folder / "site.yaml")
        with Host(deployment) as host, Client(deployment) as client:
            yield Field(cluster, deployment, host, client)
    finally:
        sys.path.remove(str(path))
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        cluster.clear()


def _count_squeue(folder: pathlib.Path) -> None:
    """Put a squeue before the real one that writes down when it was called for our jobs."""
    real, command = shutil.which("squeue"), folder / "bin/squeue"
    command.parent.mkdir()
    command.write_text(f'#!/bin/bash\n[[ "$*" == *-nap\\ * ]] && echo "$EPOCHREALTIME" >>{folder}/looks\nexec {real} "$@"\n')
    command.chmod(0o755)
