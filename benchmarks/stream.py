"""A stream of tasks that do nothing, from `submit` to the result that can be fetched, beside dask.distributed and Parsl's HTEX.

The same machine, two workers each, one after the other. The peers keep tasks and results in memory, and their workers live on;
here each task has a process of its own, and task, lease, result and verdict are on disk before anybody hears of them. So this is
the price of those promises, not of the queue: `fabric` measures that.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from beamline_side.hosts.all_in_one import Host
from beamtide import clock
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.tasks import InputFile, Task
from benchmarks.measure import Beside, Book, environment_with, scratch
from tests.slurm import nap

ROUNDS, ONES, MANY = 3, 50, 400
PROGRAM = pathlib.Path(__file__).with_name("stream_peers.py")
NAMES = ("dask", "parsl")
SITE = """
site: bench
roots: {{raw: "{folder}/raw", processed: "{folder}/processed"}}
state: "{folder}/state"
pipelines: [nap.yaml]
scaling: {{caps: {{jobs: 1, node_hours_per_day: 24}}, tick: 0.2, idle_exit: 60}}
"""
NAP = """
pipeline: nap
modality: nap
source: {match: "{scan}.h5", options: {seconds: seconds}, frames_per_task: 1}
job: {slots: 2}
write: []
"""


def run(book: Book) -> None:
    """Measure ours, and the peers where the package index can be reached."""
    ours: list[dict[str, Any]] = []
    python = environment_with("peers-stream", "distributed", "parsl")
    peers: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES if python}
    with scratch() as folder:
        book.sync(pathlib.Path(folder))
        for number in range(ROUNDS):  # interleaved
            with _site(pathlib.Path(folder) / str(number)) as stream:
                ours.append({"latency_ms": [stream.one() for _ in range(ONES)], "rate": stream.many(MANY)})
            for name, found in peers.items():
                assert python is not None
                found.append(_peer(python, name))
    latency, rate = [one for each in ours for one in each["latency_ms"]], [each["rate"] for each in ours]
    book.row("submit_to_result_ms", latency, "ms", "lower")
    book.row("tasks_per_s", rate, "1/s", "higher")
    for name, found in peers.items():
        theirs = [one for each in found for one in each["latency_ms"]]
        book.row(f"submit_to_result_beside_{name}_ms", latency, "ms", "lower", peer=Beside(name, theirs))
        book.row(f"tasks_per_s_beside_{name}", rate, "1/s", "higher", peer=Beside(name, [each["rate"] for each in found]))


class _Stream:
    """One scan of a running site, whose tasks are submitted one by one."""

    def __init__(self, client: Client, digest: Digest) -> None:
        self._client, self._digest, self._next = client, digest, 0

    def one(self) -> float:
        """Return how long one task takes, in ms."""
        began = clock.monotonic()
        self.many(1)
        return 1e3 * (clock.monotonic() - began)

    def many(self, count: int) -> float:
        """Return the tasks per second of `count` that are submitted together."""
        began, end = clock.monotonic(), self._next + count
        self._client.submit([self._task(index) for index in range(self._next, end)])
        self._next = end
        for state in self._client.subscribe("stream", "nap", wait=2.0):
            if state.complete >= end:
                break
        return count / (clock.monotonic() - began)

    def _task(self, index: int) -> Task:
        given = InputFile(root="raw", path="stream.h5", format="hdf5", first=0, last=1, options={"seconds": "seconds"})
        names = {"scan": ScanId("stream"), "pipeline": PipelineName("nap"), "modality": "nap", "settings": self._digest}
        return Task(id=TaskId(f"stream/nap/{index}"), start=index, stop=index + 1, inputs=(given,), **names)


@contextlib.contextmanager
def _site(folder: pathlib.Path) -> Iterator[_Stream]:
    path = nap.install(folder / "python")
    for name in ("raw", "processed"):
        (folder / name).mkdir()
    with h5py.File(folder / "raw" / "stream.h5", "w") as file:
        file["seconds"] = np.zeros(1)
    (folder / "site.yaml").write_text(SITE.format(folder=folder))
    (folder / "nap.yaml").write_text(NAP)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{path}:{before}"
    sys.path.insert(0, str(path))
    try:
        deployment = site.load(folder / "site.yaml")
        with Host(deployment), Client(deployment) as client:
            stream = _Stream(client, client.put_settings(deployment.pipelines["nap"]))
            stream.many(20)  # the job is there now
            yield stream
    finally:
        sys.path.remove(str(path))
        os.environ["PYTHONPATH"] = before


def _peer(python: pathlib.Path, name: str) -> dict[str, Any]:
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": ""}  # Parsl's programs are there
    command = [python, PROGRAM, name, str(ONES), str(MANY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=python.parent)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
