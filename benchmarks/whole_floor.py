"""The floor of the whole job: read every byte once, run the kernel alone on all cores, write the results once with one sync.

The kernels are ours and are made before the clock starts. Each process takes every second file, reads it as its format does, and
computes; the results of both are written to one file in one piece.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from beamtide import clock, registry
from benchmarks.whole_scans import ID, Case

Work = list[tuple[pathlib.Path, Any, Any, Mapping[str, str]]]


def seconds(case: Case, folder: pathlib.Path) -> float:
    """Return how long it takes."""
    work = _work(case, folder)
    began = clock.monotonic()
    cores = os.cpu_count() or 1
    pipes = [_started(work[number::cores]) for number in range(cores)]
    made = [_read(pipe) for pipe in pipes]
    with (folder / "floor").open("wb") as file:
        for part in made:
            file.write(part)
        os.fsync(file.fileno())
    taken = clock.monotonic() - began
    (folder / "floor").unlink()
    return taken


def _work(case: Case, folder: pathlib.Path) -> Work:
    """Return each file with its format, kernel and options."""
    found: Work = []
    for text in case.pipelines.values():
        pipeline = yaml.safe_load(text)
        modality, source = registry.find("modalities", pipeline["modality"]), pipeline["source"]
        calibration = {name: folder / "site" / path for name, path in pipeline.get("calibration", {}).items()}
        kernel = modality.load(pipeline["settings"], calibration)
        form = registry.find("formats", source["format"])
        for path in sorted((folder / "raw").glob(source["match"].replace("{scan}", ID))):
            found.append((path, form, kernel, source.get("options", {})))
    return found


def _started(work: Work) -> int:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return reading
    code = 1
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.writelines([part for one in work for part in _computed(*one)])
        code = 0
    finally:
        os._exit(code)


def _computed(path: pathlib.Path, form: Any, kernel: Any, options: Mapping[str, str]) -> list[bytes]:
    arrays = kernel(form.read(path, 0, form.probe(path, options).frames, options))
    return [np.ascontiguousarray(values).tobytes() for values in arrays.values()]


def _read(pipe: int) -> bytes:
    """Return the results of a child; RuntimeError if it failed."""
    with os.fdopen(pipe, "rb") as file:
        found = file.read()
    if os.wait()[1]:
        raise RuntimeError("a process of the floor failed; see above")
    return found
