"""A worker that has warmed up has its own copies of the pages that it is going to write to."""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys

import h5py
import numpy as np

from beamtide.formats import confinement
from cluster_side.worker.job import warm_up


def faults(path: pathlib.Path, script: bytes | None) -> int:
    """Return how many page faults the first look into a file costs a forked process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        if script is not None:
            warm_up.run(script)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        confinement.check(path, path.parent)
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with open(reading) as answer:
        return int(answer.read())


def test_a_warm_up_takes_the_page_faults_of_the_first_file(tmp_path: pathlib.Path) -> None:
    """In a process of its own, as a prefork pool is: what other tests left in memory would count too."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/instrument/counts"] = np.arange(5)
    command = [sys.executable, "-m", "tests.unit.test_warm_up", str(tmp_path / "scan.h5")]
    pairs = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=pathlib.Path(__file__).parents[2]).stdout)
    warm, cold = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert warm < 0.6 * cold, pairs


def test_a_warm_up_says_whether_it_could_be_done() -> None:
    assert warm_up.run(warm_up.script())
    assert not warm_up.run(b"no file")


if __name__ == "__main__":
    made = warm_up.script()
    print(json.dumps([(faults(pathlib.Path(sys.argv[1]), made), faults(pathlib.Path(sys.argv[1]), None)) for _ in range(5)]))
