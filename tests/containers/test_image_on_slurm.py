"""The measured scan on a real Slurm: one-task workers in a real image, as jobs of an ordinary user."""

import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from beamline_side.hosts import one_scan
from beamtide.config import site
from beamtide.config.models import Deployment
from tests.containers.conftest import Image
from tests.slurm.cluster import Cluster
from tests.system.deployments import REAL_SCAN, real_site

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(300)]
USER = "nobody"
TEMPLATE = '{{% extends "base.sh.j2" %}}\n{{% block prepare %}}\nexport PATH={path}\n{{% endblock %}}\n'


@pytest.fixture
def open_folder() -> Iterator[pathlib.Path]:
    """A folder that everybody on this machine may look into, unlike those of pytest."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="beamtide-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def everybody_mounts() -> Iterator[None]:
    """Give /dev/fuse the mode that it has on a usual Debian."""
    device = pathlib.Path("/dev/fuse")
    before = device.stat().st_mode
    device.chmod(0o666)
    yield
    device.chmod(before)


@pytest.fixture
def deployment(
    open_folder: pathlib.Path, test_data: pathlib.Path, worker_image: Image, real_slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    if os.geteuid():
        pytest.skip("JOBS IN IMAGES ARE NOT TESTED ON SLURM: only root can submit for another user")
    real_slurm.base.chmod(0o755)
    image = open_folder / "worker-cpu.sif"
    shutil.copy(worker_image.path, image)
    for name in ("logs", "node", "stage"):
        (open_folder / name).mkdir()
        shutil.chown(open_folder / name, USER)
    _templates(open_folder / "templates")
    _submit_as_user(open_folder / "bin", monkeypatch)
    (open_folder / "processed").mkdir()
    plain = real_site(open_folder, _readable(test_data, open_folder / "raw"))
    sections = {
        "launcher": "slurm",
        "network": {"bind": "127.0.0.1", "ports": "29300-29331"},
        "slurm": {"partitions": ["cpu"], "logs": open_folder / "logs", "templates": open_folder / "templates"},
        "container": {
            "runtime": "apptainer",
            "image": image,
            "digest": worker_image.digest,
            "stage": open_folder / "stage",
            "nodes": {"state": open_folder / "node"},
        },
    }
    lines = [f"{name}: {json.dumps(section, default=str)}\n" for name, section in sections.items()]
    plain.file.write_text(plain.file.read_text() + "".join(lines))
    return site.load(plain.file)


def test_workers_in_an_image_are_jobs_of_a_user(deployment: Deployment, real_slurm: Cluster, everybody_mounts: None) -> None:
    users: set[str] = set()

    def look(_: object) -> None:
        users.update(real_slurm.run("squeue", "-h", "-o", "%u").split())

    outcome = one_scan.run_scan(deployment, REAL_SCAN, look)
    rows = outcome.last.pipelines
    counts = {name: (row.done, row.abandoned) for name, row in rows.items()}
    assert counts == {"encoders": (11, 0), "xrf": (11, 0)}, _logs(deployment)
    assert users == {USER}
    assert len(list(deployment.site.container.stage.glob("*.sif"))) == 1
    digest = deployment.site.container.digest.encode()
    assert all(digest in path.read_bytes() for path in outcome.files if path.suffix == ".h5")
    for stage in ("staging", "image", "imports", "kernel"):
        assert re.search(rf"{stage}_s=(?!0\.0\b)\d", _logs(deployment)), f"no job told of its {stage}"


def _readable(data: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Copy the measured scan to where everybody can read it."""
    for name in ("positions", "xrf"):
        shutil.copytree(data / name, folder / name, copy_function=shutil.copyfile)
        (folder / name).chmod(0o755)
    return folder


def _templates(folder: pathlib.Path) -> None:
    """Templates as a site has them, where a module would be loaded."""
    folder.mkdir()
    text = TEMPLATE.format(path=os.environ["PATH"])
    for modality in ("encoders", "xrf"):
        (folder / f"{modality}.sh.j2").write_text(text)


def _submit_as_user(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an sbatch before the real one that submits for an ordinary user."""
    folder.mkdir()
    command = folder / "sbatch"
    command.write_text(f'#!/bin/bash\ncd /\nexec runuser -u {USER} -- {shutil.which("sbatch")} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _logs(deployment: Deployment) -> str:
    return "\n".join(path.read_text(errors="replace") for path in deployment.site.slurm.logs.iterdir())
