"""The writer with a real sink and metadata server: live file, final file, trouble, and services that come and go."""

import pathlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import h5py
import msgspec
import numpy as np
import pytest

import beamtide
from beamline_side.services.components import SERVICES
from beamline_side.services.writer import filed_scans, troubles
from beamline_side.services.writer.writer import Stopped, Writer
from beamline_side.spool.sqlite_spool import Spool
from beamtide.component.heartbeat import card_of
from beamtide.component.service import links_of
from beamtide.config.models import Budgets, Deployment, LeaseConfig
from beamtide.errors import BadInput
from beamtide.messages import Ok
from beamtide.messages.dead_letters import DropRequest
from beamtide.messages.metadata import Put, PutFileRequest, PutSettingsRequest, ScanEnded, ScanStarted, SettingsDocument
from beamtide.messages.results import DatasetHeader, ListRequest, Products, Release, Released, Results, ResultsRequest
from beamtide.messages.tasks import Lease, LeaseRequest, StatusRequest, SubmitRequest, TaskFailed, TaskStatus, WatchTasksRequest
from beamtide.pump import Caller, Pump
from beamtide.results import layout, reading
from beamtide.session import Session
from tests.builders.sites import write_site
from tests.writer_scans import Batch, line, lost, positions, product_of, state_of

pytestmark = pytest.mark.system
PIPELINES = {
    "xrf": {"source": {"match": "*.h5"}, "positions": "encoders", "write": ["hdf5", "tiff"]},
    "encoders": {"source": {"match": "*.h5"}, "write": []},
}


@pytest.fixture
def deployment(tmp_path: pathlib.Path) -> Deployment:
    (tmp_path / "raw").mkdir()
    found = write_site(tmp_path, PIPELINES)
    found.sockets().mkdir(parents=True, mode=0o700)
    return found


@contextmanager
def serving(deployment: Deployment, name: str) -> Iterator[None]:
    """Run a real service in a thread, with its real spool."""
    service = SERVICES[name.partition(".")[0]]
    links = {link: deployment.address(to) for link, to in links_of(deployment, name, service).items()}
    ready, pumps = threading.Event(), []

    def serve() -> None:
        spool = Spool(deployment.site.state / f"{name}.sqlite")
        pumps.append(Pump(service.build(deployment, name, spool), Session(card_of(deployment, name)), links, spool))
        ready.set()
        pumps[0].run()
        spool.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        pumps[0].stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def caller(deployment: Deployment) -> Iterator[Caller]:
    with ExitStack() as stack:
        for name in ("sink", "metadata"):
            stack.enter_context(serving(deployment, name))
        caller = stack.enter_context(Caller())
        scan = state_of().scan
        assert caller.ask(deployment.address("metadata"), ScanStarted(scan=scan), Ok)
        yield caller


def release(caller: Caller, deployment: Deployment, *found: Batch) -> None:
    for request, arrays in found:
        caller.ask(deployment.address("sink"), Release(result=request), Released, arrays=arrays)


def release_positions(caller: Caller, deployment: Deployment, settings: str = "") -> None:
    there, headers = positions(), tuple(DatasetHeader(name=name, units="um") for name in "xy")
    for number in range(4):
        task = line(number)[0].task
        task = msgspec.structs.replace(task, pipeline="encoders", settings=settings or task.settings)
        request = type(line(0)[0])(task=task, attempt=1, outcome="result", datasets=headers)
        cut = slice(task.start, task.stop)
        release(caller, deployment, (request, {"x": there.x[cut], "y": there.y[cut]}))


def test_live_file_then_final_file_with_positions_and_settings(deployment: Deployment, caller: Caller) -> None:
    processed, following = deployment.site.roots.processed, Writer(deployment, caller)
    live, final = (rule(processed, "scan_1", "xrf") for rule in (layout.live_file, layout.result_file))
    release(caller, deployment, line(0), line(1))
    following.step()
    assert live.exists()
    release(caller, deployment, lost(2, "broken"), line(3))
    caller.ask(deployment.address("metadata"), ScanEnded(scan=state_of().scan.id), Ok)
    following.step()
    assert following.why() == "xrf of scan_1 waits for the positions of encoders."
    release_positions(caller, deployment)
    following.step()
    assert (following.why(), live.exists(), final.exists()) == ("", False, True)
    assert reading.verify(final) == []
    iron = beamtide.open("scan_1", processed=processed)["xrf/area/Fe_K"]
    assert iron.coords["x"][1] - iron.coords["x"][0] == pytest.approx(0.5, abs=0.02)
    assert np.isnan(iron.values[2]).all()
    before = final.stat().st_mtime_ns
    again = Writer(deployment, caller)
    again.step()
    assert (again.progress()["finished"], final.stat().st_mtime_ns) == (1, before)


def test_an_unwritable_folder_is_a_sentence_and_nothing_is_lost(
    deployment: Deployment, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "REST", 0.0)
    processed, following = deployment.site.roots.processed, Writer(deployment, caller)
    processed.write_text("a file where the folder should be")
    release(caller, deployment, line(0))
    following.step()
    assert "xrf of scan_1 is not written: [Errno 20] Not a directory" in following.why()
    processed.unlink()
    release(caller, deployment, line(1))
    following.step()
    assert following.why() == ""
    following.close()
    with pytest.raises(Stopped):
        Writer(deployment, caller, pulse=stop_at_once).step()


def stop_at_once() -> None:
    raise Stopped


def test_one_bad_product_does_not_stop_the_others(deployment: Deployment, caller: Caller) -> None:
    processed, following, good = deployment.site.roots.processed, Writer(deployment, caller), product_of(scan="scan_2")
    caller.ask(deployment.address("metadata"), ScanStarted(scan=state_of(scan="scan_2").scan), Ok)
    layout.live_file(processed, "scan_1", "xrf").mkdir(parents=True)
    release(caller, deployment, line(0), line(0, product=good))
    following.step()
    assert "xrf of scan_1 is not written: [Errno 21] Is a directory" in following.why()
    assert layout.live_file(processed, "scan_2", "xrf").is_file()
    following.close()


def test_the_settings_and_calibration_files_are_in_the_file(deployment: Deployment, caller: Caller) -> None:
    metadata = deployment.address("metadata")
    file = caller.ask(metadata, PutFileRequest(name="fit.cfg", content=b"[peaks]"), Put)
    document = SettingsDocument(modality="xrf", values='{"snip":24}', calibration={"cfg": file.digest})
    product = product_of(caller.ask(metadata, PutSettingsRequest(document=document), Put).digest)
    caller.ask(metadata, ScanEnded(scan=product.scan), Ok)
    release(caller, deployment, *(line(number, product=product) for number in range(4)))
    release_positions(caller, deployment)
    Writer(deployment, caller).step()
    with h5py.File(layout.result_file(deployment.site.roots.processed, "scan_1", "xrf")) as root:
        assert root["entry/process/calibration_cfg/data"].asstr()[()] == "[peaks]"
        assert '"snip": 24' in root["entry/process/settings/data"].asstr()[()]


def test_a_sink_that_is_away_is_a_sentence_and_comes_back(deployment: Deployment) -> None:
    with Caller() as caller, serving(deployment, "metadata"):
        caller.ask(deployment.address("metadata"), ScanStarted(scan=state_of().scan), Ok)
        following = Writer(deployment, caller)
        following.step()
        assert "is the service running?" in following.why()
        with serving(deployment, "sink"):
            release(caller, deployment, line(0))
            following.step()
            assert following.why() == ""
            assert layout.live_file(deployment.site.roots.processed, "scan_1", "xrf").exists()
        following.close()


@pytest.fixture
def small_sink(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Deployment, Caller]]:
    """A site whose sink has no room for what stands in files, with a distributor and buffers that give up after one fault."""
    monkeypatch.setattr(filed_scans, "WHILE", 0.0)
    changed = {"budgets": Budgets.model_construct(results=0), "leases": LeaseConfig(faults=1)}
    small = deployment.model_copy(update={"site": deployment.site.model_copy(update=changed)})
    with ExitStack() as stack:
        for name in ("sink", "metadata", "distributor", "buffer.xrf", "buffer.encoders"):
            stack.enter_context(serving(small, name))
        caller = stack.enter_context(Caller())
        assert caller.ask(small.address("metadata"), ScanStarted(scan=state_of().scan), Ok)
        yield small, caller


def test_what_stands_in_a_file_may_go_and_nobody_misses_it(small_sink: tuple[Deployment, Caller]) -> None:
    site, caller = small_sink
    following, final = Writer(site, caller), layout.result_file(site.site.roots.processed, "scan_1", "xrf")
    release(caller, site, *(line(number) for number in range(4)))
    release_positions(caller, site)
    caller.ask(site.address("metadata"), ScanEnded(scan=state_of().scan.id), Ok)
    for _ in range(3):
        following.step()
    before = final.stat().st_mtime_ns
    assert filed_of(caller, site) == {"xrf": True, "encoders": False}, "what stands in no file of its own stays"
    release_positions(caller, site, settings="of other positions")
    again = Writer(site, caller)
    for one in (following, again):
        for _ in range(2):
            one.step()
        assert (one.why(), one.progress()["open"]) == ("", 0)
    assert final.stat().st_mtime_ns == before
    with pytest.raises(BadInput, match="only in its result files"):
        caller.ask(site.address("sink"), ResultsRequest(product=product_of(), start=0), Results)


def test_nothing_goes_while_a_format_could_not_be_written(small_sink: tuple[Deployment, Caller]) -> None:
    plain, caller = small_sink
    xrf = plain.pipelines["xrf"].model_copy(update={"write": ("hdf5", "cxi")})
    site = plain.model_copy(update={"pipelines": plain.pipelines | {"xrf": xrf}})
    following = Writer(site, caller)
    release(caller, site, *(line(number) for number in range(4)))
    release_positions(caller, site)
    caller.ask(site.address("metadata"), ScanEnded(scan=state_of().scan.id), Ok)
    for _ in range(3):
        following.step()
    assert following.why() == "xrf of scan_1 cannot be written as cxi: write: cxi is for reconstructions, and xrf has no error"
    assert following.progress()["open"] == 0, "it is not tried again"
    assert layout.result_file(site.site.roots.processed, "scan_1", "xrf").exists()
    assert not filed_of(caller, site)["xrf"]


def test_nothing_goes_while_a_task_is_open_or_may_be_retried(small_sink: tuple[Deployment, Caller]) -> None:
    site, caller = small_sink
    following, task = Writer(site, caller), line(2)[0].task
    caller.ask(site.address("distributor"), SubmitRequest(tasks=(task,)), Ok)
    release(caller, site, *(lost(number, "broken") if number == 2 else line(number) for number in range(4)))
    release_positions(caller, site)
    caller.ask(site.address("metadata"), ScanEnded(scan=state_of().scan.id), Ok)
    for _ in range(3):
        following.step()
    assert layout.result_file(site.site.roots.processed, "scan_1", "xrf").exists()
    assert not filed_of(caller, site)["xrf"], "it is open"
    buffer = site.address("buffer.xrf")
    lease = caller.ask(buffer, LeaseRequest(worker="h-1", job="7", wait=10.0, host="h"), Lease)
    failed = TaskFailed(worker="h-1", task=task.id, attempt=lease.attempt, cause="fault", reason="broken", host="h", job="7")
    caller.ask(buffer, failed, Ok)
    after = 0
    while not caller.ask(site.address("distributor"), StatusRequest(), TaskStatus).tallies[0].abandoned:
        after = caller.ask(
            site.address("distributor"), WatchTasksRequest(scan=task.scan, after=after, wait=1.0), TaskStatus
        ).version
    for _ in range(3):
        following.step()
    assert not filed_of(caller, site)["xrf"], "it may be retried"
    caller.ask(buffer, DropRequest(tasks=(task.id,)), Ok)
    following.step()
    assert filed_of(caller, site)["xrf"]


def filed_of(caller: Caller, deployment: Deployment) -> dict[str, bool]:
    answer = caller.ask(deployment.address("sink"), ListRequest(), Products)
    return {state.product.pipeline: state.filed for state in answer.products}
