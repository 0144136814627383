"""The beamline's components and writers in their own image, one container each; the workers are jobs of this machine."""

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from beamtide import clock
from beamtide.client.client import Client
from beamtide.config.models import Deployment
from beamtide.errors import NoAnswer
from beamtide.results import layout
from cluster_side.images import checks, runtime
from tests.containers.conftest import Image
from tests.system.deployments import REAL_SCAN, real_site
from tests.system.test_real_scan import check_every_index_once, expected_maps, maps_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
PATIENCE = 120.0


@dataclass
class Site:
    """A site whose components run, by name; what they said is in the folder of the site file."""

    deployment: Deployment
    running: dict[str, subprocess.Popen[bytes]]

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true; a component that ends fails the test with its last output."""
        end = clock.monotonic() + PATIENCE
        while clock.monotonic() < end:
            with contextlib.suppress(NoAnswer):  # the topology manager is still being started
                if true():
                    return
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended: {self.log(name).read_text()[-2000:]}"
            clock.pause(0.2)
        raise AssertionError({name: self.log(name).read_text()[-300:] for name in self.running})

    def log(self, name: str) -> pathlib.Path:
        return self.deployment.file.parent / f"{name}.log"


@contextlib.contextmanager
def in_image(deployment: Deployment, image: pathlib.Path) -> Iterator[Site]:
    """Start each component in a container of its own, as a service manager does, and the autoscaler outside."""
    roots, site = deployment.site.roots, Site(deployment, {})
    options = ["--cleanenv", "--no-home", "--no-mount", "cwd", "--pwd", "/", "--bind", str(deployment.file.parent)]
    options += [word for root in (roots.raw, roots.shared) for word in ("--bind", f"{root}:{root}:ro")]
    inside = [str(runtime.detect().path), "exec", *options, str(image), "beamtide", "serve"]
    try:
        for name in deployment.components():
            command = [sys.executable, "-m", "beamtide", "autoscale"] if name == "autoscaler" else [*inside, name]
            with site.log(name).open("wb") as log:
                site.running[name] = subprocess.Popen([*command, "-c", str(deployment.file)], stdout=log, stderr=log)
        yield site
    finally:
        for process in reversed(site.running.values()):
            process.terminate()
            process.wait(30)


def test_it_is_whole(beamline_image: Image) -> None:
    assert not [text for text in checks.image(runtime.detect(), beamline_image.path).values() if text]


@pytest.mark.system
def test_components_inside_write_what_workers_outside_computed(
    beamline_image: Image, tmp_path: pathlib.Path, test_data: pathlib.Path
) -> None:
    deployment = real_site(tmp_path / "site", test_data, "file")
    deployment.site.roots.processed.mkdir()
    deployment.site.state.mkdir(mode=0o700)
    path = layout.result_file(deployment.site.roots.processed, REAL_SCAN.id, "xrf")
    with in_image(deployment, beamline_image.path) as site, Client(deployment) as client:
        site.until(lambda: len(client.topology()) == len(deployment.components()))
        client.scan_started(REAL_SCAN)
        client.scan_ended(REAL_SCAN.id)
        site.until(path.exists)
    check_every_index_once(path)
    copper = expected_maps(test_data)["Cu_K"]
    assert maps_of(deployment)["Cu_K"].sum() == pytest.approx(copper.sum(dtype=float), rel=1e-3)
    assert list(path.parent.rglob("*.tif*"))
    assert list(path.parent.rglob("*.jp*g"))
