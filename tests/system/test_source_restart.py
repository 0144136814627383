"""The real source process, killed with kill -9 in the middle of a scan, while the files change: nothing stands anywhere else."""

import pathlib
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from beamtide import clock
from beamtide.client.client import Client
from beamtide.config.models import Deployment
from beamtide.errors import NoAnswer
from beamtide.messages.base import PipelineName, ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import Pulled, PullRequest, Task
from beamtide.pump import Caller
from tests.builders.sites import write_site
from tests.system.test_delivery_kill9 import start

pytestmark = pytest.mark.system
WIDTH = 4


def write(path: pathlib.Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path.with_suffix(".part"), "w") as file:
        for number in range(1, 5):
            file[f"entry/data/encoder_{number}"] = np.zeros(frames)
    path.with_suffix(".part").rename(path)


def until(what: Callable[[], bool]) -> None:
    end = clock.monotonic() + 60
    while True:
        try:
            if what():
                return
        except NoAnswer:
            pass
        assert clock.monotonic() < end, "it never happened"


def submitted(client: Client) -> int:
    return sum(one.submitted for one in client.status("s").tallies)


def tasks_of(deployment: Deployment) -> tuple[Task, ...]:
    """Return the tasks that the distributor keeps, as the buffer gets them."""
    pull = PullRequest(pipeline=PipelineName("pilc"), after=0, credit=100, wait=0.0)
    with Caller() as caller:
        pulled = caller.ask(deployment.address("distributor"), pull, Pulled, patience=20)
    return tuple(entry.task for entry in pulled.entries if entry.task is not None)


@pytest.mark.long
@pytest.mark.parametrize("mishap", ["shrink", "vanish", "rename"])
def test_a_source_that_was_killed_puts_no_file_elsewhere(tmp_path: pathlib.Path, mishap: str) -> None:
    source = {"match": "{scan}/a_*.nxs", "format": "p06_pilc", "frames_per_task": "line", "frames_per_file": "any", "settle": 0.1}
    settings = {"axes": {"x": {"field": "encoder_1"}}}
    deployment = write_site(tmp_path, {"pilc": {"modality": "encoders", "source": source, "settings": settings}}, jobs=0)
    raw = tmp_path / "raw/s"
    running = {name: start(deployment, name) for name in ("metadata", "distributor", "sink", "source")}
    try:
        with Client(deployment) as client:
            for number in range(2):
                write(raw / f"a_{number}.nxs", WIDTH)
            client.scan_started(Scan(id=ScanId("s"), shape=(4, WIDTH)))
            until(lambda: submitted(client) == 2)
            running["source"].kill()
            running["source"].wait()
            if mishap == "shrink":
                write(raw / "a_0.nxs", WIDTH - 1)
            elif mishap == "vanish":
                (raw / "a_0.nxs").unlink()
            else:
                (raw / "a_0.nxs").rename(raw / "a_9.nxs")
            write(raw / "a_2.nxs", WIDTH)
            running["source"] = start(deployment, "source")
            until(lambda: submitted(client) == 3)
            client.scan_ended("s")
            until(lambda: submitted(client) == 4)
        found = [(task.start, task.stop, [part.path for part in task.inputs]) for task in tasks_of(deployment)]
        files = [[f"s/a_{number}.nxs"] for number in range(3)]
        assert found == [(WIDTH * at, WIDTH * at + WIDTH, names) for at, names in enumerate([*files, []])]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
