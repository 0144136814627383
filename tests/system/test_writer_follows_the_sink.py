"""The writer with a real sink and metadata server: live file, final file, trouble, and services that come and go."""

import pathlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import h5py
import numpy as np
import pytest

import beamtide
from beamline_side.hosts.process import SERVICES  # noqa: F401 - fails here, not in a thread, when the host is broken
from beamline_side.services import metadata_server, sink, writer
from beamline_side.services.writer import Stopped, Writer
from beamline_side.spool.sqlite_spool import Spool
from beamtide import layout, results, site
from beamtide.config import Deployment
from beamtide.messages import Ok
from beamtide.messages.metadata import Put, PutFileRequest, PutSettingsRequest, ScanEnded, ScanStarted, SettingsDocument
from beamtide.messages.results import DatasetHeader, Release, Released
from beamtide.presence import card_of
from beamtide.pump import Caller, Pump
from beamtide.session import Session
from tests.writer_scans import Batch, line, lost, positions, product_of, state_of

pytestmark = pytest.mark.system
SITE = 'site: p06\nroots: {{raw: "{0}/raw", processed: "{0}/processed"}}\nstate: "{0}/s"\n'
SITE += "scaling: {{caps: {{jobs: 1, node_hours_per_day: 9}}}}\n"
XRF = 'pipeline: xrf\nmodality: xrf\nsource: {{match: "*.h5"}}\npositions: encoders\nwrite: [{0}]\n'
ENCODERS = 'pipeline: encoders\nmodality: encoders\nsource: {match: "*.h5"}\nwrite: []\n'


@pytest.fixture
def deployment(tmp_path: pathlib.Path) -> Deployment:
    (tmp_path / "site.yaml").write_text(SITE.format(tmp_path) + "pipelines: [xrf.yaml, encoders.yaml]\n")
    (tmp_path / "xrf.yaml").write_text(XRF.format("hdf5, tiff"))
    (tmp_path / "encoders.yaml").write_text(ENCODERS)
    (tmp_path / "raw").mkdir()
    found = site.load(tmp_path / "site.yaml")
    found.sockets().mkdir(parents=True, mode=0o700)
    return found


@contextmanager
def serving(deployment: Deployment, name: str) -> Iterator[None]:
    """Run a real service in a thread, with its real spool."""
    service = {"sink": sink.SERVICE, "metadata": metadata_server.SERVICE}[name]
    ready, pumps = threading.Event(), []

    def serve() -> None:
        spool = Spool(deployment.site.state / f"{name}.sqlite")
        pumps.append(Pump(service.build(deployment, name, spool), Session(card_of(deployment, name)), {}, spool))
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


def release_positions(caller: Caller, deployment: Deployment) -> None:
    there, headers = positions(), tuple(DatasetHeader(name=name, units="um") for name in "xy")
    for number in range(4):
        task = line(number)[0].task
        task = type(task)(**{name: getattr(task, name) for name in task.__struct_fields__} | {"pipeline": "encoders"})
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
    assert results.verify(final) == []
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
    monkeypatch.setattr(writer, "REST", 0.0)
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
