"""The image for GPUs. It is large, so `make images` builds it, not every run; a GPU itself is used where there is one."""

import pathlib
import subprocess

import pytest

from beamtide.config.models import Deployment
from cluster_side.images import checks, enter, runtime
from tests.containers.conftest import Image
from tests.containers.test_image import with_image
from tests.system.deployments import real_site

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
DRIVER = "import ctypes; print('initialised', ctypes.CDLL('libcuda.so.1').cuInit(0))"


@pytest.fixture
def deployment(tmp_path: pathlib.Path, test_data: pathlib.Path, gpu_image: Image) -> Deployment:
    plain = real_site(tmp_path / "site", test_data)
    plain.site.state.mkdir(mode=0o700)
    return with_image(plain, runtime="apptainer", image=gpu_image.path, digest=gpu_image.digest)


def a_job(deployment: Deployment, *argv: str) -> subprocess.CompletedProcess[str]:
    text = enter.script(deployment, argv, gpus=1)
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=120, check=False)


def test_it_is_whole(gpu_image: Image) -> None:
    assert not [text for text in checks.image(runtime.detect(), gpu_image.path).values() if text]


def test_a_job_finds_the_driver_inside_or_says_that_there_is_none(deployment: Deployment) -> None:
    """The driver only: an image from a plain Debian has no CUDA libraries, one from its own base has."""
    done = a_job(deployment, "python", "-c", DRIVER)
    if enter.GPU_DRIVER.exists():
        assert (done.returncode, done.stdout) == (0, "initialised 0\n"), done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (enter.IMAGE_CODES[0], "", 1)
        assert "has no NVIDIA driver" in done.stderr
