"""Checks of an image on this machine: does it run, is it for this machine, does it match its lock file, does its MPI fit.

Each check is a name and a sentence; "" means that all is well.
"""

import pathlib
import platform
import re
import shutil
import subprocess

from beamtide.errors import BadInput
from cluster_side.images import definition, runtime
from cluster_side.images.build import CHECKOUT
from cluster_side.images.runtime import Runtime

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
FUSE = ("squashfuse", "/dev/fuse", "mount failure")
NAMESPACES = ("user namespace", "userns", "clone", "newuidmap")
MAJOR = re.compile(r"(?:Open MPI\D*|mpirun \(Open MPI\) )(\d+)\.(\d+)|(MPICH)\D*(\d+)\.(\d+)", re.IGNORECASE)


def image(program: Runtime, path: pathlib.Path) -> dict[str, str]:
    """Return check -> sentence for an image on this machine. BadInput: it is missing or not a whole image."""
    labels = runtime.labels(program, path)
    kind, built_for = labels.get(definition.LABEL + "image", ""), labels.get("org.label-schema.build-arch", "")
    ours = ARCHITECTURES.get(platform.machine(), platform.machine())
    wrong = f"it was built for {built_for}, and this machine is {ours}; build it on such a machine"
    found = {"architecture": "" if built_for in ("", ours) else wrong}
    found["made by Beamtide"] = (
        "" if kind in definition.KINDS else "it has no label org.beamtide.image; use `beamtide image build`"
    )
    found["runs"] = _runs(program, path)
    if not any(found.values()):
        found |= {"test": _test(program, path), "versions": _versions(program, path, labels), "lock": stale(labels)}
    return found


def stale(labels: dict[str, str]) -> str:
    """Return why the versions in an image are not those of this Beamtide, or ""; a Beamtide without lock files cannot tell."""
    kind, inside = labels.get(definition.LABEL + "image", ""), labels.get(definition.LABEL + "lock", "")
    lock = CHECKOUT / "containers" / "locks" / f"{kind}.lock"
    if not lock.is_file() or definition.digest_of(lock.read_text()) == inside:
        return ""
    return f"it was built from other versions ({inside}) than {lock.name} pins now; build it again, or go back to that lock file"


def mpi(program: Runtime, path: pathlib.Path) -> dict[str, str]:
    """Return check -> sentence: is there an MPI in the image, is it that of this machine, and which PMI do both know."""
    code, inside = runtime.inside(program, path, ["mpirun", "--version"])
    if code:
        return {"MPI in the image": "it has no mpirun; use an image of kind worker-mpi"}
    host = _host_says(["mpirun", "--version"])
    found = {"MPI in the image": ""}
    found["same MPI outside"] = differs(inside, host) if host else ""
    if (known := _host_says(["srun", "--mpi=list"])) and "MPI plugin types" in known:  # else there is no Slurm that answers
        _, offered = runtime.inside(program, path, ["sh", "-c", "ompi_info --parsable 2>/dev/null | grep -i pmix | head -n 1"])
        lacks = "Slurm here knows no pmix, so `srun` cannot start ranks in this image; use mpirun inside the image (one node)"
        found["PMI of Slurm"] = "" if not offered or "pmix" in known else lacks
    return found


def differs(inside: str, outside: str) -> str:
    """Return why two MPIs, by what `mpirun --version` prints, cannot work as one (the hybrid way), or ""."""
    one, other = _family(inside), _family(outside)
    if one == other:
        return ""
    return (
        f"the image has {' '.join(one)}, this machine has {' '.join(other)}: ranks would not find each other. "
        "Load the same MPI outside, or run mpirun inside the image (one node)"
    )


def _family(text: str) -> tuple[str, str]:
    found = MAJOR.search(text)
    if not found:
        return "an unknown MPI", ""
    return ("MPICH", found[4]) if found[3] else ("Open MPI", found[1])


def _host_says(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def _runs(program: Runtime, path: pathlib.Path) -> str:
    code, said = runtime.inside(program, path, ["true"])
    return reason(said, path) if code else ""


def reason(said: str, path: pathlib.Path) -> str:
    """Return the reason why the container program could not start an image."""
    short = " ".join(said.split())[-300:]
    if "corrupted" in said:
        return f"it is not a whole image ({short}); copy or build it again"
    if any(word in said for word in FUSE):
        return f"this user cannot mount {path.name} ({short}); ask for /dev/fuse, or build it as a folder with --sandbox"
    if any(word in said for word in NAMESPACES):
        return f"this machine gives users no namespaces ({short}); ask for them, or for a setuid installation"
    return f"{path.name} does not start here: {short}"


def _test(program: Runtime, path: pathlib.Path) -> str:
    done = subprocess.run(
        [str(program.path), "test", "--no-home", "--cleanenv", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else f"its own test failed: {' '.join((done.stdout + done.stderr).split())[-300:]}"


def _versions(program: Runtime, path: pathlib.Path, labels: dict[str, str]) -> str:
    """Compare the label with the lock file inside the image."""
    code, text = runtime.inside(program, path, ["cat", "/opt/beamtide/lock"])
    try:
        found = definition.digest_of(text) if code == 0 else ""
    except BadInput:
        found = ""
    return (
        ""
        if found == labels.get(definition.LABEL + "lock")
        else "its lock file is not the one that its label names; build it again"
    )
