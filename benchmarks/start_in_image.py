"""The same in a container: what entering an image costs beside the bare container program, and workers forked inside of it.

Needs Apptainer or SingularityCE on PATH and an image in BEAMTIDE_IMAGE_FILE (`beamtide image build worker-cpu FILE`); else it
says so and measures nothing.
"""

import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Mapping
from types import MappingProxyType

from beamline_side.hosts import demo
from beamline_side.simulation import beamline
from beamtide.config import site
from beamtide.config.models import Deployment
from benchmarks.measure import Beside, Book, scratch
from benchmarks.start_rig import POINTS, SCAN, forked, strict, task_of
from cluster_side.images import build, enter

TIMES, TASKS = 20, 40


def run(book: Book) -> None:
    """Measure, where there is an image."""
    image = pathlib.Path(os.environ.get("BEAMTIDE_IMAGE_FILE", "-"))
    program = next((name for name in ("apptainer", "singularity") if shutil.which(name)), None)
    if not image.exists() or program is None:
        print("not measured in a container: set BEAMTIDE_IMAGE_FILE to an image, with apptainer or singularity on PATH")
        return
    with scratch() as folder:
        deployment = _in_image(demo.prepare_demo(pathlib.Path(folder)), program, image)
        beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
        deployment.site.state.mkdir(exist_ok=True)
        script = enter.script(deployment, ("true",))
        ours, bare = [], []
        for _ in range(TIMES):
            ours.append(_seconds(["bash", "-c", script]))
            bare.append(_seconds([program, "exec", str(image), "true"]))
        ratio = [one / other for one, other in zip(ours, bare, strict=True)]
        book.row("exec_ratio", ratio, "", "lower", floor=Beside(f"{program} exec IMAGE true, in s", bare))
        lives, free = forked(deployment, task_of(deployment), TASKS)
        jobs = [strict(deployment, task_of(deployment)) for _ in range(TIMES)]
    with scratch() as folder:
        staged = {"digest": build.file_digest(image), "stage": f"{folder}/node", "unpack": True}
        deployment = _in_image(demo.prepare_demo(pathlib.Path(folder)), program, image, staged)
        beamline.simulate(deployment.site.roots.raw, SCAN, seconds_per_line=0.0)
        deployment.site.state.mkdir(exist_ok=True)
        unpacked = [strict(deployment, task_of(deployment)) for _ in range(TIMES + 1)][1:]  # the first one unpacks
    book.row("forked_worker_in_image_p50_ms", lives, "ms", "lower", notes={"spectra_per_task": POINTS})
    book.row("slot_free_to_lease_in_image_p50_ms", free, "ms", "lower")
    floor = Beside(f"{program} exec IMAGE true", bare)
    book.row("strict_job_in_image_s", jobs, "s", "lower", floor=floor)
    book.row("strict_job_in_unpacked_image_s", unpacked, "s", "lower", floor=floor)


def _in_image(
    deployment: Deployment, program: str, image: pathlib.Path, more: Mapping[str, object] = MappingProxyType({})
) -> Deployment:
    file = deployment.file
    file.write_text(file.read_text() + f"container: {json.dumps({'runtime': program, 'image': str(image), **more})}\n")
    return site.load(file)


def _seconds(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began
