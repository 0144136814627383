"""The real Lavue shows a map that grows, and amplitude and phase of a reconstruction at work."""

import contextlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest

from beamtide.cli import lavue
from beamtide.config.models import Deployment
from tests.ports import free_ports
from tests.ptycho_scans import simulate
from tests.system.test_ptychography_live import SCAN, SIDE, beamline, deployment_for

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(170)]
PROBE = pathlib.Path(__file__).with_name("lavue_probe.py")


@pytest.fixture(scope="module", autouse=True)
def _lavue(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where there is no Lavue, or no library that its window needs."""
    if importlib.util.find_spec("lavuelib") is None or importlib.util.find_spec("PyQt5") is None:
        pytest.skip("LAVUE IS NOT TESTED: no lavue or PyQt5 here (pip install lavue PyQt5)")
    trial = seen_by_lavue(free_ports(1), "nothing", tmp_path_factory.mktemp("lavue") / "c")
    try:
        next(trial)
        trial.close()
    except StopIteration as stop:
        pytest.skip(f"LAVUE IS NOT TESTED: it does not start here: {stop.value}")


def seen_by_lavue(port: int, topic: str, folder: pathlib.Path) -> Generator[dict[str, Any], None, str]:
    """Yield what a Lavue offers and shows, twice a second; it ends with the iterator. StopIteration: it ended by itself."""
    command = [sys.executable, str(PROBE), str(port), topic, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            assert process.stderr is not None
            return process.stderr.read()[-300:]
        finally:
            process.kill()


def until(seen: Iterator[dict[str, Any]], true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first sight for which something is true."""
    last: dict[str, Any] = {}
    for _, last in zip(range(120), seen, strict=False):
        if true(last):
            return last
    raise AssertionError(last)


@contextlib.contextmanager
def streamed(deployment: Deployment) -> Iterator[int]:
    """Run the command's stream; yield its port."""
    port, stopped = free_ports(1), threading.Event()
    thread = threading.Thread(target=lavue.stream, args=(deployment, "", port, stopped.is_set))
    thread.start()
    try:
        yield port
    finally:
        stopped.set()
        thread.join(20)


def test_a_map_and_a_reconstruction_are_seen_while_they_grow(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=SIDE)
    deployment = deployment_for(tmp_path / "site", truth, 1)
    with beamline(deployment) as line, streamed(deployment) as port:
        line.measure(lines=4, files=2)
        line.client.scan_started(SCAN)
        _, arrays = line.until(line.look)
        phases = seen_by_lavue(port, "ptycho_object_phase", tmp_path / "phase")
        wanted = {"ptycho_object_phase", "ptycho_object_amplitude", "ptycho_error", "encoders_x", "encoders_y"}
        first = until(phases, lambda seen: bool(seen["shape"]) and wanted <= set(seen["offered"]))
        assert first["shape"] == list(arrays["object_phase"].shape[::-1])
        assert "ptycho" in first["name"]
        line.measure(lines=SIDE, files=4)
        larger = until(phases, lambda seen: np.prod(seen["shape"]) > np.prod(first["shape"]))
        assert larger["name"] != first["name"]
        line.client.scan_ended(SCAN.id)
        maps = seen_by_lavue(port, "encoders_x", tmp_path / "map")
        whole = until(maps, lambda seen: seen["shape"] == [SIDE, SIDE] and np.isfinite(seen["last"]))
        ends = (1e6 * truth.measured * truth.pixel)[[0, -1], 1]
        np.testing.assert_allclose([whole["first"], whole["last"]], ends, rtol=1e-5)
        phases.close()
        maps.close()
