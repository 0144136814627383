"""The last line of a job's log, for `beamtide jobs`: it says why a job ended before it worked."""

import os
import pathlib
import re

from beamtide.config.models import Deployment
from cluster_side.scaling.launchers.base import job_name

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Container programs end their error message with one, on a line of its own."""
TAIL = 4096
MOST = 300


def last_line(deployment: Deployment, folder: pathlib.Path, job: str) -> str:
    """Return the last line of a job's log in that folder, without control characters; "" where it cannot be read.

    A line of Beamtide is preferred: where ranks were started by srun, the last line is srun's.
    """
    for pipeline in deployment.pipelines:
        try:
            with (folder / f"{job_name(deployment, pipeline)}-{job}.log").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                lines = COLOUR.sub("", file.read().decode(errors="replace")).split("\n")
        except OSError:
            continue  # another pipeline's job; or the folder is not mounted here, or the job ended before it opened its log
        last_first = [line for line in reversed(lines) if line.strip()]
        said = next((line for line in last_first if line.startswith("beamtide ")), next(iter(last_first), ""))
        return "".join(letter if letter.isprintable() else " " for letter in said).strip()[:MOST]
    return ""
