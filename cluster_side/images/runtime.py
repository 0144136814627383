"""The container program of this machine, Apptainer or SingularityCE, driven by spython.

spython calls `singularity`; where only `apptainer` is installed, it finds that one under the other's name.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamtide.errors import BadInput

PROGRAMS = ("apptainer", "singularity")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A container program: its name, where it is, and what it calls itself."""

    program: str
    path: pathlib.Path
    version: str


def detect(wanted: str = "") -> Runtime:
    """Return the container program of this machine; BadInput when there is none."""
    for program in (wanted,) if wanted else PROGRAMS:
        if place := shutil.which(program):
            said = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
            return Runtime(program, pathlib.Path(place), said.strip())
    names = wanted or " nor ".join(PROGRAMS)
    raise BadInput(f"there is neither {names} on PATH; install one of them, or set container.runtime: none in the site file")


@contextlib.contextmanager
def client(runtime: Runtime) -> Iterator[Any]:
    """Yield spython's client, set up to find our program."""
    from spython.main import Client  # it is only needed where images are made

    before = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(prefix="beamtide-") as folder:
        (pathlib.Path(folder) / "singularity").symlink_to(runtime.path)
        os.environ["PATH"] = f"{folder}:{before}"
        try:
            yield Client
        finally:
            os.environ["PATH"] = before


def labels(runtime: Runtime, image: pathlib.Path) -> dict[str, str]:
    """Return the labels of an image; BadInput when it is missing or not a whole image."""
    if not image.exists():
        raise BadInput(f"there is no image {image}; build it with `beamtide image build`")
    with client(runtime) as spython:
        found = spython.inspect(str(image), quiet=True)
    attributes = found.get("attributes") if isinstance(found, Mapping) else None
    if not isinstance(attributes, Mapping):
        said = " ".join(str(found.get("message", "") if isinstance(found, Mapping) else found).split())
        raise BadInput(f"{image} is not a whole image ({said[:200]}); copy or build it again")
    return {str(name): str(value) for name, value in (attributes.get("labels") or {}).items()}


def inside(runtime: Runtime, image: pathlib.Path, argv: Sequence[str], seconds: float = 120) -> tuple[int, str]:
    """Run a command in an image as a job would, without home and with a clean environment; return its exit code and words."""
    command = [str(runtime.path), "exec", "--no-home", "--cleanenv", str(image), *argv]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} did not end within {seconds:.0f} s in {image}"
    return done.returncode, (done.stdout + done.stderr).strip()
