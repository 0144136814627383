"""Enters the image of a job: text for the end of a batch script, which becomes the worker by `exec`, so that signals reach it.

Pure: configuration in, bash out; every word is quoted. The node needs bash, coreutils, sed and the container program, no Python.
The image is copied to the node once (single flight, digest checked, unpacked if wanted, started once as a probe, tried twice);
inputs are bound read-only under the paths of the site file, wherever they are on the node.
Source of the options: Apptainer and SingularityCE manuals, `exec`.
"""

import pathlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from beamtide.config.container import Folder
from beamtide.config.models import Deployment

IMAGE_CODES = (69, 255)
"""Exit codes of a job whose node could not start the image: ours, and the container program's own."""

GPU_DRIVER = pathlib.Path("/dev/nvidiactl")
"""This path exists where NVIDIA's driver is loaded."""
NEEDS_GPU = (
    f'[[ -e {GPU_DRIVER} ]] || {{ echo "beamtide job: this job wants a GPU, and node $(hostname) has no NVIDIA driver '
    f'(no {GPU_DRIVER}); look at slurm.gpu_partitions, or set job.gpus: 0" >&2; exit {IMAGE_CODES[0]}; }}'
)


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the node, and its path inside. A job without a `needed` folder ends with an error message."""

    node: pathlib.Path
    inside: pathlib.Path
    writable: bool = False
    needed: bool = True


def binds(deployment: Deployment) -> tuple[Bind, ...]:
    """Return what a worker may see, outer folders first: raw, processed, shared and the site file read-only, state writable."""
    site = deployment.site
    wanted: dict[Folder, tuple[pathlib.Path | None, bool]] = {
        "raw": (site.roots.raw, False),
        "processed": (site.roots.processed, False),
        "shared": (site.roots.shared, False),
        "site": (deployment.file.parent, False),
        "state": (site.state, True),
    }
    pipelines = {path.parent for path in site.pipelines}
    found = [
        Bind(site.container.nodes.get(name, path), path, writable, name != "processed")  # made with the first result
        for name, (path, writable) in wanted.items()
        if path
    ]
    found += [Bind(folder, folder) for folder in pipelines if folder != deployment.file.parent]
    return tuple(sorted(set(found), key=lambda bind: (len(bind.inside.parts), str(bind.inside), bind.writable)))


def script(deployment: Deployment, argv: Sequence[str], gpus: int = 0) -> str:
    """Return the last lines of a batch script: become `argv`, in the image if the site has one."""
    container, gpu = deployment.site.container, f"{NEEDS_GPU}\n" if gpus else ""
    if container.runtime == "none":
        return f"{gpu}exec {shlex.join(argv)}\n"
    functions = resources.files("cluster_side.images").joinpath("enter.sh").read_text()
    lines = [
        "BEAMTIDE_BEGAN=$(date +%s.%N)",
        functions,
        f"umask {container.umask}",
        f"beamtide_need {container.runtime}",
        f"beamtide_image={shlex.quote(str(container.image))}",
    ]
    lines += [_bind(bind) for bind in binds(deployment)]
    if container.stage and container.digest:
        sha, stage = container.digest.removeprefix("sha256:"), shlex.quote(str(container.stage))
        shape = "folder" if container.unpack else "file"
        lines.append(f'beamtide_stage "$beamtide_image" {sha} {stage} {container.runtime} {shape}')
    lines.append("BEAMTIDE_ENTERED=$(date +%s.%N)")
    lines.append(f"export BEAMTIDE_BEGAN BEAMTIDE_ENTERED BEAMTIDE_IMAGE={container.digest or 'unpinned'}")
    options = ["--no-home", "--no-mount", "cwd", "--pwd", "/", "--cleanenv", *(["--nv"] if gpus else [])]
    words = shlex.join(["exec", *options])
    lines.append(f'beamtide_enter {container.runtime} {words} "${{beamtide_binds[@]}}" "$beamtide_image" {shlex.join(argv)}')
    return gpu + "\n".join(lines) + "\n"


def _bind(bind: Bind) -> str:
    modes = ("rw" if bind.writable else "ro", "needed" if bind.needed else "optional")
    return shlex.join(["beamtide_bind", str(bind.node), str(bind.inside), *modes])
