"""What 0.1.0 left on disk is read: its spools go on where they were stopped, and its result files say what they said.

The data and `expected.json` were made by `make.py` with the code of 0.1.0; its docstring says what lies where. They are never
made again: what a later version cannot read here, it cannot read at a beamline either.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

import beamtide
from beamline_side.hosts.process import PARENT
from beamline_side.services.components import SERVICES
from beamline_side.spool.sqlite_spool import Spool
from beamtide import clock
from beamtide.client.adoption import adopted
from beamtide.client.client import Client
from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.config.settings import UNSTATED
from beamtide.machine import Tick
from beamtide.messages.base import Ok, Seconds
from beamtide.messages.results import Results, ResultsRequest
from beamtide.messages.scaling import GaugeRequest, SorterGauge
from beamtide.messages.tasks import Lease, LeaseRequest, Pulled, PullRequest, TaskFailed
from beamtide.pump import Caller
from beamtide.results import layout, reading

GOLDEN = pathlib.Path(__file__).parent
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
MODALITIES = sorted(path.stem for path in (GOLDEN / "results").glob("*.h5"))
SCAN, LATER = "golden_a", "golden_b"
BESIDE = ("metadata", "sink", "distributor")
ALL = ("topology", "fence", *BESIDE, "buffer.encoders", "sorter.encoders", "buffer.xrd", "sorter.xrd")


def expected(name: str) -> Any:
    return EXPECTED[f"services {name}"]


def plainly(value: Any) -> Any:
    """Return a message as what JSON makes of it."""
    if isinstance(value, msgspec.Struct):
        return {name: plainly(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plainly(one) for name, one in value.items()}
    return [plainly(one) for one in value] if isinstance(value, tuple | list) else value


def says(found: Any, wanted: Any, where: str = "") -> None:
    """Compare what is told with what 0.1.0 told; fields that came later are not looked at."""
    if isinstance(wanted, dict):
        for name, one in wanted.items():
            assert name in found, f"{where} has no {name}"
            says(found[name], one, f"{where}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
            says(mine, theirs, f"{where}[{number}]")
    else:
        assert found == wanted, where


def same_values(values: Any, wanted: dict[str, Any]) -> None:
    """Compare shape, missing values, the sum of all, and the first that are there."""
    assert list(values.shape) == wanted["shape"]
    parts = np.stack([values.real, values.imag], axis=-1) if values.dtype.kind == "c" else values
    flat = np.ravel(parts).astype(np.float64)
    there = flat[~np.isnan(flat)]
    assert len(flat) - len(there) == wanted["missing"]
    np.testing.assert_allclose(np.abs(there).sum(), wanted["sum"], rtol=1e-6)
    np.testing.assert_allclose(there[:3], wanted["first"], rtol=1e-6)


# --- the spools -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployment(tmp_path: pathlib.Path) -> Deployment:
    """A copy of the site, with the spools where its services look for them."""
    shutil.copytree(GOLDEN / "site", tmp_path / "site")
    shutil.copytree(GOLDEN / "spool", tmp_path / "site" / "state" / "spool")
    return site.load(tmp_path / "site" / "site.yaml")


@contextlib.contextmanager
def running(deployment: Deployment, *names: str) -> Iterator[Client]:
    """Run services, each in a process of its own, and end them cleanly."""
    environment = os.environ | {PARENT: str(os.getpid())}
    logs = deployment.site.state / "logs"
    logs.mkdir(exist_ok=True)
    children = {}
    for name in names:
        command = [sys.executable, "-m", "beamtide", "serve", name, "-c", str(deployment.file)]
        with (logs / f"{name}.log").open("ab") as log:
            children[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        with Client(deployment, patience=30) as client:
            yield client
    finally:
        for child in children.values():
            child.terminate()
        ended = {name: child.wait(20) for name, child in children.items()}
    assert not any(ended.values()), {name: (logs / f"{name}.log").read_text()[-2000:] for name, code in ended.items() if code}


def until(look: Callable[[], bool], what: str, seconds: float = 40) -> None:
    end = clock.monotonic() + seconds
    while not look():
        assert clock.monotonic() < end, f"{what}: it never came"
        clock.pause(0.05)


def lease(caller: Caller, deployment: Deployment, pipeline: str, worker: str) -> Lease:
    question = LeaseRequest(worker=worker, job="later", wait=10.0, host="node-2")
    return caller.ask(deployment.address(f"buffer.{pipeline}"), question, Lease, patience=20)


def fail(caller: Caller, deployment: Deployment, held: Lease, worker: str) -> None:
    failed = TaskFailed(worker=worker, task=held.task.id, attempt=held.attempt, cause="fault", reason="again")
    caller.ask(deployment.address(f"buffer.{held.task.pipeline}"), failed, Ok, patience=20)


def waiting(caller: Caller, deployment: Deployment, pipeline: str) -> int:
    return caller.ask(deployment.address(f"sorter.{pipeline}"), GaugeRequest(), SorterGauge).waiting


def test_every_core_takes_up_its_spool(deployment: Deployment) -> None:
    """Opened twice, since the first start may change what it finds; what a core was about to do is not done."""
    spools = sorted((deployment.site.state / "spool").glob("*.sqlite"))
    assert len(spools) == 7
    letters, queued = {"encoders": 0, "xrd": 1}, expected("queued")
    for path in (*spools, *spools):
        kind, _, pipeline = path.stem.partition(".")
        service = SERVICES[kind]
        spool = Spool(path, reserve=1 << 20)
        try:
            core = service.build(deployment, path.stem, spool)
            core.check()
            core.handle(Tick(), Seconds(0.0))
            core.check()
            progress = core.progress()
        finally:
            spool.close()
        match kind:
            case "metadata":
                assert (progress["scans"], progress["settings"]) == (2, 2)
            case "distributor":
                assert (progress["queued.encoders"], progress["queued.xrd"]) == (1, 2)
            case "sink":
                assert (progress["products"], progress["results"]) == (2, 6)
            case "sorter":
                assert progress["waiting"] == {"encoders": 0, "xrd": 1}[pipeline]
            case "buffer":
                assert progress["dead"] == letters[pipeline]
                assert {name: progress[name] for name in queued[pipeline]} == queued[pipeline]


@pytest.mark.system
def test_metadata_and_sink_tell_what_they_told(deployment: Deployment) -> None:
    with running(deployment, "metadata", "sink") as client, Caller() as caller:
        says(plainly(client.scans()), expected("scans"))
        kept = {digest: plainly(document) for digest, document in client.settings_list()}
        says(kept, expected("settings"))
        assert kept.keys() == expected("settings").keys() == set(expected("digests").values())
        unstated = dict.fromkeys(deployment.pipelines, UNSTATED)
        assert site.settings_of(deployment, unstated) == expected("digests"), "the same settings have another digest now"
        assert client.file(expected("file")["digest"]).decode() == expected("file")["content"]
        says(plainly(client.products()), expected("products"))
        wanted = expected("fetched")
        found = client.fetch(SCAN, wanted["dataset"])
        assert (found.start, found.stop) == (wanted["start"], wanted["stop"])
        says(plainly(found.holes), wanted["holes"])
        same_values(found.values, wanted)
        first, *_ = client.products(SCAN, "encoders")
        question = ResultsRequest(product=first.product, start=0)
        whole, arrays = caller.converse(deployment.address("sink"), question, Results, patience=20)
        assert [(one.task.start, one.task.stop, one.outcome) for one in whole.results] == [
            (at, at + 6, "result") for at in (0, 6, 12, 18)
        ]
        assert all(one.provenance is not None and one.provenance.job == "golden" for one in whole.results)
        np.testing.assert_array_equal(arrays["1/x"], client.fetch(SCAN, "encoders/x", 6, 12).values)


@pytest.mark.system
def test_results_keep_their_identity_where_their_source_is_that_of_today(deployment: Deployment) -> None:
    with running(deployment, "metadata", "sink") as client:
        adopted(client, client.scans(SCAN)[0])
        assert client.settings_now(SCAN) == expected("digests")


@pytest.mark.system
def test_results_of_another_source_are_not_taken_for_those_of_today(deployment: Deployment) -> None:
    file = deployment.file.parent / "encoders.yaml"
    file.write_text(file.read_text().replace("    y: y", "    y: x", 1))
    corrected = site.load(deployment.file)
    with running(corrected, "metadata", "sink") as client:
        adopted(client, client.scans(SCAN)[0])
        assert client.settings_now(SCAN)["encoders"] != expected("digests")["encoders"]


@pytest.mark.system
def test_the_distributor_hands_on_its_journal(deployment: Deployment) -> None:
    with running(deployment, "distributor") as client, Caller() as caller:
        says(plainly(client.status().tallies), expected("status"))
        for name, wanted in expected("journal").items():
            question = PullRequest(pipeline=name, after=0, credit=10, wait=0.0)
            pulled = caller.ask(client.deployment.address("distributor"), question, Pulled, patience=20)
            assert [one.task.id if one.task else f"cancelled {one.cancelled.scan}" for one in pulled.entries] == wanted


@pytest.mark.system
def test_services_go_on_where_they_were_stopped(deployment: Deployment) -> None:
    """Queues, leases with their attempts, the dead letter, and what only the distributor had."""
    queued = expected("queued")
    with running(deployment, *ALL) as client, Caller() as caller:
        until(lambda: client.gauge("encoders").ready == queued["encoders"]["ready"] + 1, "the task of the later scan")
        until(lambda: client.gauge("xrd").ready == queued["xrd"]["ready"], "the failed task")
        gauges = {name: client.gauge(name) for name in queued}
        assert {name: (one.held, one.leased) for name, one in gauges.items()} == {"encoders": (0, 1), "xrd": (2, 0)}
        for name, leases in expected("leases").items():
            assert [
                [(one := lease(caller, deployment, name, worker)).task.id, one.attempt, worker] for *_, worker in leases
            ] == leases
        held = lease(caller, deployment, "encoders", "worker-gone")
        says(plainly(held.task), expected("tasks")["worker-gone"])

        (listed,) = client.dead_letters()
        assert (listed.task.id, listed.trace) == (expected("letter")["task"]["id"], "")
        says(plainly(client.dead_letter(listed.task.id)), expected("letter"))
        assert [waiting(caller, deployment, name) for name in queued] == [0, 1]

        until(lambda: any(tally.abandoned for tally in client.status(LATER).tallies), "the verdict of the cancelled task")
        until(lambda: bool(client.products(LATER, "xrd")), "the hole of the cancelled task")
        (state,) = client.products(LATER, "xrd")
        assert (state.complete, state.results) == (6, 0)
        assert state.holes[0].reason == "the golden scan is cancelled"
        assert [state.complete for state in client.products(SCAN)] == [24, 12]
        client.retry([listed])
        again = lease(caller, deployment, "xrd", "worker-b")
        assert (again.task.id, again.task.generation, again.attempt) == (listed.task.id, 1, listed.attempts + 1)
        assert client.dead_letters() == ()


@pytest.mark.system
def test_what_happened_to_a_task_is_still_counted(deployment: Deployment) -> None:
    """One failure more is the last: of two that `leases.faults` allows, one was there before; and so was a lost worker."""
    with running(deployment, *ALL) as client, Caller() as caller:
        second = lease(caller, deployment, "xrd", "worker-a")
        fail(caller, deployment, second, "worker-a")
        letter = client.dead_letter(second.task.id)
        assert (letter.faults, letter.losses, letter.attempts) == (2, 0, 2)
        assert (letter.trace, letter.stderr) == ("Traceback: made up", "its last words")
        fail(caller, deployment, lease(caller, deployment, "encoders", "worker-gone"), "worker-gone")
        names = {lease(caller, deployment, "encoders", worker).task.id: worker for worker in ("worker-a", "worker-b", "worker-c")}
        lost = expected("tasks")["worker-gone"]["id"]
        fail(caller, deployment, lease(caller, deployment, "encoders", names[lost]), names[lost])
        letter = client.dead_letter(lost)
        assert (letter.faults, letter.losses, letter.attempts) == (2, 1, 3)


@pytest.mark.long
@pytest.mark.system
def test_workers_of_today_finish_the_scan_of_then(deployment: Deployment) -> None:
    """The lost lease runs out, the fences open, and the result that waited in the sorter goes to the sink."""
    text = deployment.file.read_text()
    assert "ttl: 600" in text
    deployment.file.write_text(text.replace("ttl: 600", "ttl: 5"))
    deployment = site.load(deployment.file)
    with running(deployment, *ALL) as client, Caller() as caller:
        for pipeline, tasks in (("encoders", 3), ("xrd", 3)):
            command = [sys.executable, "-m", "beamtide", "work", "-c", str(deployment.file), "--pipeline", pipeline]
            subprocess.run([*command, "--tasks", str(tasks), "--idle-exit", "30"], check=True, capture_output=True)
        until(lambda: [state.complete for state in client.products(SCAN)] == [36, 36], "the end of the scan")
        encoders, xrd = sorted(client.products(SCAN), key=lambda state: state.product.pipeline)
        assert (encoders.results, encoders.holes, xrd.results) == (6, (), 5)
        says(plainly(xrd.holes), expected("fetched")["holes"])
        assert not np.isnan(client.fetch(SCAN, "xrd/roi/ring", 12, 36).values).any()
        assert not np.isnan(client.fetch(LATER, "encoders/x").values).any()
        assert [waiting(caller, deployment, name) for name in ("encoders", "xrd")] == [0, 0]
        assert [letter.task.id for letter in client.dead_letters()] == [expected("letter")["task"]["id"]]


# --- the result files -----------------------------------------------------------------------------------------------------


def test_there_is_a_file_of_each_modality() -> None:
    names = "counters dpc dpc_phase encoders interferometer positions ptychography xbic xrd xrf"
    assert names.split() == MODALITIES


@pytest.mark.parametrize("modality", MODALITIES)
def test_result_files_say_what_they_said(modality: str, tmp_path: pathlib.Path) -> None:
    wanted = {name.removeprefix("results "): one for name, one in EXPECTED.items() if name.startswith(f"results {modality}/")}
    folder = layout.scan_folder(tmp_path, "golden_1")
    folder.mkdir(parents=True)
    shutil.copyfile(GOLDEN / "results" / f"{modality}.h5", folder / f"{modality}.h5")
    assert reading.list_results(tmp_path) == ["golden_1"]
    read = beamtide.open("golden_1", processed=tmp_path)
    assert list(read) == sorted(wanted)
    for name, one in wanted.items():
        for found, said in ((read[name], one["drawn"]), (read.rows(name), one["rows"])):
            assert (found.units, list(found.axes), found.coord_units) == (said["units"], said["axes"], said["axis_units"]), name
            assert found.values.dtype.str == said["dtype"], name
            same_values(found.values, said)
    assert reading.verify(folder / f"{modality}.h5") == []
