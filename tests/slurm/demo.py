"""`make slurm-demo`: the demo scan on a real Slurm on this machine. What is shown is what `squeue` says."""

import collections
import os
import pathlib
import shutil
import tempfile

from beamline_side.hosts import demo
from beamtide import clock
from beamtide.client.snapshot import Snapshot
from beamtide.config import site
from beamtide.config.models import Deployment
from cluster_side.scaling.launchers.base import job_name
from tests.slurm.cluster import Cluster, NoSlurm, require

FOLDER = pathlib.Path("demo-slurm")
SHAPE = (41, 41)
GONE_WITHIN = 120.0
SLURM = "launcher: slurm\nslurm: {partitions: [cpu], cpus_per_node: 8}\n"


class Show:
    """Prints one line whenever the number of jobs changes, and every few seconds."""

    def __init__(self, cluster: Cluster, deployment: Deployment) -> None:
        self._cluster, self._began = cluster, clock.monotonic()
        self._names = {job_name(deployment, name): name for name in deployment.pipelines}
        self._last: dict[str, str] = {}
        self._next = 0.0
        self.most = 0

    def __call__(self, seen: Snapshot | None) -> None:
        now = clock.monotonic()
        jobs = self.jobs()
        if jobs == self._last and now < self._next:
            return
        self._last, self._next = jobs, now + 5
        words = (
            [f"{name} {row.queued} queued {row.done}/{row.total} done" for name, row in seen.pipelines.items()] if seen else []
        )
        said = "  ".join(f"{name}: {count}" for name, count in jobs.items()) or "no jobs"
        print(f"{now - self._began:6.1f} s   {said:40}   {'   '.join(words)}", flush=True)

    def jobs(self) -> dict[str, str]:
        """Return "3 running, 1 pending" for each pipeline that has jobs."""
        lines = [line.split() for line in self._cluster.queue(f"--name={','.join(self._names)}")]
        self.most = max(self.most, len(lines))
        counts = collections.Counter((self._names[name], state.lower()) for _, state, name, *_ in lines)
        found: dict[str, list[str]] = {}
        for (pipeline, state), count in sorted(counts.items()):
            found.setdefault(pipeline, []).append(f"{count} {state}")
        return {pipeline: ", ".join(words) for pipeline, words in found.items()}


def main() -> None:
    """Start a Slurm, measure and process a scan on it, wait until its queue is empty, stop it."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="beamtide-slurm-"))
    try:
        require()
        cluster = Cluster(base)
        print(f"Starting a Slurm of {len(cluster.nodes)} nodes on this machine …", flush=True)
        cluster.start()
    except NoSlurm as error:
        shutil.rmtree(base)
        raise SystemExit(f"No Slurm, no demo: {error}") from error
    try:
        print(cluster.run("sinfo"), end="", flush=True)
        _demo(cluster)
    finally:
        cluster.stop()
        shutil.rmtree(base, ignore_errors=True)


def _demo(cluster: Cluster) -> None:

    os.environ["SLURM_CONF"] = str(cluster.conf)
    deployment = demo.prepare_demo(FOLDER.resolve())
    deployment.file.write_text(deployment.file.read_text() + SLURM)
    deployment = site.load(deployment.file)
    show = Show(cluster, deployment)
    outcome = demo.measure(deployment, SHAPE, show)
    rows = outcome.last.pipelines.values()
    abandoned, doubled = (sum(getattr(row, name) for row in rows) for name in ("abandoned", "doubled"))
    print(f"Done in {outcome.seconds:.0f} s: {sum(row.total for row in rows)} tasks, {abandoned} abandoned, {doubled} doubled.")
    ended = clock.monotonic()
    while show.jobs():
        if clock.monotonic() > ended + GONE_WITHIN:
            raise SystemExit(f"After {GONE_WITHIN:.0f} s there are still jobs: {show.jobs()}")
        show(None)
        clock.pause(0.5)
    print(f"No jobs left {clock.monotonic() - ended:.0f} s after the end; at most {show.most} at once.")
    for element, ratio, spread in demo.recovered_and_true(deployment, outcome.scan):
        print(f" recovered / true   {element} {ratio:.3f} ±{max(spread, 0.001):.3f}")


if __name__ == "__main__":
    main()
