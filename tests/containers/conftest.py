"""A real container program and a real image for the tests, made once and kept between runs in the user's cache folder.

Where they cannot be had the tests are skipped with one loud line that says why.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from beamtide.errors import BadInput
from cluster_side.images import build as builder
from cluster_side.images import definition

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
HOME = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
CACHE = (HOME if os.geteuid() else pathlib.Path("/var/cache")) / "beamtide"
"""Root's is where jobs of other users can read it, too."""
KEPT_IMAGES = 2


@dataclass(frozen=True)
class Image:
    """An image that was built from this checkout."""

    path: pathlib.Path
    digest: str


@pytest.fixture(scope="session")
def apptainer() -> pathlib.Path:
    """Put a container program on PATH: that of this machine, or one from Debian's packages."""
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        folder = CACHE / "apptainer"
        with _alone():
            done = subprocess.run(["bash", HERE / "apptainer.sh", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"CONTAINERS ARE NOT TESTED: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        os.environ["PATH"] = f"{folder}/usr/bin:{os.environ['PATH']}"
    return pathlib.Path(shutil.which("apptainer") or shutil.which("singularity") or "")


@pytest.fixture(scope="session")
def base_folder(apptainer: pathlib.Path) -> pathlib.Path:
    """A root folder to build from: no registry of images is needed."""
    folder = CACHE / "base"
    with _alone():
        if not folder.exists():
            if os.geteuid() or not shutil.which("debootstrap"):
                pytest.skip("IMAGES ARE NOT TESTED: only root with debootstrap can make the folder that they are built from")
            done = subprocess.run(["sh", ROOT / "containers/recipe/base.sh", folder], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"IMAGES ARE NOT TESTED: debootstrap failed: {done.stdout.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def worker_image(base_folder: pathlib.Path) -> Image:
    """The image worker-cpu of this checkout."""
    return _built("worker-cpu", base_folder)


@pytest.fixture(scope="session")
def mpi_image(base_folder: pathlib.Path) -> Image:
    """The image worker-mpi of this checkout; its Open MPI comes from Debian's mirror."""
    try:
        return _built("worker-mpi", base_folder)
    except BadInput as error:
        if any(words in str(error) for words in ("Failed to fetch", "Unable to locate package", "Temporary failure resolving")):
            pytest.skip(f"THE IMAGE OF RANKS IS NOT TESTED: Debian's mirror cannot be reached while it is built: {error}")
        raise


@pytest.fixture(scope="session")
def beamline_image(base_folder: pathlib.Path) -> Image:
    """The image beamline of this checkout."""
    return _built("beamline", base_folder)


@pytest.fixture(scope="session")
def gpu_image(base_folder: pathlib.Path) -> Image:
    """The image worker-gpu of this checkout; built from a plain Debian here, without the libraries of CUDA."""
    if "BEAMTIDE_TEST_GPU_IMAGE" not in os.environ:
        pytest.skip("THE IMAGE FOR GPUS IS NOT TESTED: it takes minutes and half a gigabyte; `make images` tests it")
    return _built("worker-gpu", base_folder)


def _built(kind: str, base_folder: pathlib.Path) -> Image:
    """Return an image; it is built again only when something that goes into it has changed."""
    name = f"{kind}-{_fingerprint(kind)}"
    path, record = CACHE / f"{name}.sif", CACHE / f"{name}.json"
    with _alone():
        if not record.exists():
            path.unlink(missing_ok=True)
            _grant_sub_uids()
            order = builder.BuildOrder(kind, path, str(base_folder), wheels=CACHE / "wheels")
            built = builder.build(order, print)
            record.write_text(json.dumps({"digest": built.digest, "megabytes": built.megabytes}))
            _forget_old_ones(kind)
    return Image(path, json.loads(record.read_text())["digest"])


def _fingerprint(kind: str) -> str:
    """Return a name for all that goes into an image."""
    digest = hashlib.sha256(definition.digest_of((ROOT / f"containers/locks/{kind}.lock").read_text()).encode())
    folders = ("beamtide", "beamline_side", "cluster_side", "containers")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old_ones(kind: str) -> None:
    records = sorted(CACHE.glob(f"{kind}-*.json"), key=lambda path: path.stat().st_mtime)
    for record in records[:-KEPT_IMAGES]:
        record.with_suffix(".sif").unlink(missing_ok=True)
        record.unlink()


def _grant_sub_uids() -> None:
    """Let a root without all capabilities build in a user namespace."""
    for name in ("subuid", "subgid"):
        file = pathlib.Path("/etc") / name
        if os.geteuid() == 0 and not any(line.startswith("root:") for line in file.read_text().splitlines()):
            with file.open("a") as more:
                more.write("root:300000:65536\n")


class _alone:  # noqa: N801  used like a function
    """One test process at a time makes something in the cache."""

    def __enter__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._file = (CACHE / "lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
