"""The client against the real services, each in a process of its own."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from beamline_side.hosts.process import PARENT
from beamtide import clock
from beamtide.cli import main
from beamtide.client.client import Client
from beamtide.client.live_maps import Galleries
from beamtide.errors import BadInput, NoAnswer
from beamtide.messages import Ok, results
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.messages.tasks import Lease, LeaseRequest, StatusRequest, Task, TaskFailed
from beamtide.pump import Caller
from tests.builders.sites import write_site
from tests.builders.tasks import make_need, make_task

pytestmark = pytest.mark.system
PIPELINE = {"modality": "encoders", "source": {"match": "x.h5"}, "settings": {"axes": {}}}
SCAN, TWICE, FAILED = (Scan(id=ScanId(name), shape=(2, 3)) for name in ("s1", "s2", "s3"))
TASK = make_task(stop=3, scan=SCAN.id, pipeline="one", modality="encoders", settings="ab" * 32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("c")
    (folder / "raw").mkdir()
    write_site(folder, {"one": PIPELINE}, jobs=0, leases={"faults": 1})
    command = [sys.executable, "-m", "beamtide", "serve"]
    environment = os.environ | {PARENT: str(os.getpid())}
    children = [
        subprocess.Popen([*command, name, "-c", str(folder / "site.yaml")], env=environment, stdout=subprocess.DEVNULL)
        for name in ("topology", "metadata", "distributor", "sink", "fence", "buffer.one")
    ]
    with Client(folder / "site.yaml", patience=20) as opened:
        yield opened
    for child in children:
        child.terminate()
    for child in children:
        child.wait(10)


def test_the_life_of_a_scan(client: Client) -> None:
    client.scan_announced(SCAN, in_seconds=5)
    assert client.scans("s1")[0].phase == "announced"
    client.scan_started(SCAN)
    client.scan_ended("s1", points=4)
    (state,) = client.scans("s1")
    assert (state.phase, state.points) == ("ended", 4)


def test_submitting_twice_changes_nothing_and_cancel_ends_it(client: Client) -> None:
    client.submit([TASK])
    client.submit([TASK])
    first = next(client.watch("s1"))
    assert [tally.submitted for tally in first.tallies] == [1]
    client.cancel("s1")
    seen = client.watch("s1", wait=5)
    assert next(status for status in seen if status.tallies and status.tallies[0].abandoned).tallies[0].submitted == 1
    assert client.gauge("one").ready == 0


def test_settings_come_back_by_digest(client: Client) -> None:
    digest = client.put_settings(client.deployment.pipelines["one"])
    assert client.settings(digest).modality == "encoders"
    assert digest in dict(client.settings_list("encoders"))


def test_settings_that_nobody_knows(client: Client) -> None:
    with pytest.raises(BadInput):
        client.settings("0" * 64)


def test_nothing_to_fetch_is_said(client: Client) -> None:
    assert client.products("s1") == ()
    with pytest.raises(BadInput, match="no results of pipeline 'one'"):
        client.fetch("s1", "one/x")


def task_of(scan: Scan, settings: str, start: int, stop: int) -> Task:
    whose = {"scan": scan.id, "pipeline": "one", "modality": "encoders", "settings": settings}
    return make_task(start, stop, id=f"{scan.id}/one/{settings[:8]}/{start}", **whose)


def store(client: Client, task: Task, value: float) -> None:
    """Be the sorter: hand a result of pipeline one to the sink."""
    header = results.DatasetHeader(name="x", units="um")
    result = results.StoreRequest(task=task, attempt=1, outcome="result", datasets=(header,))
    arrays = {"x": np.full(task.stop - task.start, value)}
    with Caller() as caller:
        caller.ask(client.deployment.address("sink"), results.Release(result=result), results.Released, arrays=arrays)


def test_results_of_two_settings_stay_apart(client: Client) -> None:
    """The old settings' results go on coming while those of new ones are there: whoever looks sees one of both, whole."""
    client.scan_started(TWICE)
    with Galleries(client.deployment, TWICE.id) as galleries:
        store(client, task_of(TWICE, "old", 0, 3), 1.0)
        np.testing.assert_array_equal(galleries.look()["one_x"].values, [[1, 1, 1], [np.nan] * 3])
        store(client, task_of(TWICE, "new", 0, 2), 2.0)
        np.testing.assert_array_equal(galleries.look()["one_x"].values, [[2, 2, np.nan], [np.nan] * 3])
        np.testing.assert_array_equal(client.fetch(TWICE.id, "one/x", settings="old").values, [1, 1, 1])
        np.testing.assert_array_equal(client.fetch(TWICE.id, "one/x").values, [2, 2])
        store(client, task_of(TWICE, "old", 3, 6), 1.0)
        np.testing.assert_array_equal(galleries.look()["one_x"].values, np.ones(TWICE.shape))
        np.testing.assert_array_equal(client.fetch(TWICE.id, "one/x", settings="new").values, [2, 2])
    with pytest.raises(BadInput, match="with settings other yet"):
        client.fetch(TWICE.id, "one/x", settings="other")


def test_a_bundle_holds_what_its_task_needs_and_not_what_is_newest(client: Client, tmp_path: pathlib.Path) -> None:
    client.scan_started(FAILED)
    store(client, task_of(FAILED, "old", 0, 3), 1.0)
    store(client, task_of(FAILED, "new", 0, 3), 2.0)
    digest = client.put_settings(client.deployment.pipelines["one"])
    need = make_need(3, "one", settings="old")
    client.submit([task := msgspec.structs.replace(task_of(FAILED, digest, 0, 3), needs=(need,))])
    with Caller() as caller:
        buffer = client.deployment.address("buffer.one")
        lease = caller.ask(buffer, LeaseRequest(worker="w", job="j", wait=5.0), Lease)
        failure = TaskFailed(worker="w", task=lease.task.id, attempt=lease.attempt, cause="fault", reason="it is bad")
        caller.ask(buffer, failure, Ok)
    assert lease.task.id == task.id
    assert main.run(["dlq", "export", task.id, "--to", str(tmp_path / "b"), "-c", str(client.deployment.file)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "b/datasets/one/x.npy"), [1, 1, 1])


def test_the_topology_names_the_components(client: Client) -> None:
    end, seen = clock.monotonic() + 20, set[str]()
    while not {"metadata", "sink"} <= seen and clock.monotonic() < end:
        seen = {report.card.name for report in client.topology()}
        clock.pause(0.05)
    assert {"metadata", "sink"} <= seen


def test_a_service_that_is_not_there(client: Client) -> None:
    with Client(client.deployment, patience=0.2) as hasty, pytest.raises(NoAnswer):
        hasty._ask("writer", StatusRequest())
