"""A worker that rehearsed has its own copy of what it is going to write to."""

import os
import pathlib
import resource
import statistics

import h5py
import numpy as np

from beamtide.formats import confinement
from cluster_side.worker import rehearsal


def faults(path: pathlib.Path, script: int | None) -> int:
    """Return how many pages the first look into a file costs a forked child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        if script is not None:
            rehearsal.play(script)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        confinement.check(path, path.parent)
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with open(reading) as answer:
        return int(answer.read())


def test_a_rehearsal_takes_the_page_faults_of_the_first_file(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/instrument/counts"] = np.arange(5)
    script = rehearsal.script()
    assert rehearsal.play(script)
    pairs = [(faults(tmp_path / "scan.h5", script), faults(tmp_path / "scan.h5", None)) for _ in range(5)]
    rehearsed, cold = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert rehearsed < 0.6 * cold, pairs
    os.close(script)


def test_a_rehearsal_that_fails_is_no_failure(tmp_path: pathlib.Path) -> None:
    nothing = os.open(tmp_path, os.O_RDONLY)
    assert not rehearsal.play(nothing)
    os.close(nothing)
    assert not rehearsal.play(nothing)
