"""Ranks in an image: by the mpirun of the image, and the hybrid way, by the srun of a real Slurm outside."""

import os
import pathlib
import subprocess

import pytest

from cluster_side.images import checks, runtime
from tests.containers.conftest import Image
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
SUM = "from mpi4py.MPI import COMM_WORLD as all; print('rank', all.rank, 'of', all.size, 'sum', all.allreduce(all.rank))"
PYTHON = ("/opt/beamtide/bin/python", "-c", SUM)


def lines(command: list[str], **environment: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))


def test_ranks_by_the_mpirun_of_the_image(apptainer: pathlib.Path, mpi_image: Image) -> None:
    inside = ["mpirun", "--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "-n", "2", *PYTHON]
    found = lines([str(apptainer), "exec", "--cleanenv", "--no-home", str(mpi_image.path), *inside])
    assert found == ["rank 0 of 2 sum 1", "rank 1 of 2 sum 1"]
    said = checks.mpi(runtime.detect(), mpi_image.path)
    assert said["MPI in the image"] == ""


@pytest.mark.system
def test_ranks_by_the_srun_outside(apptainer: pathlib.Path, mpi_image: Image, real_slurm: Cluster) -> None:
    if why := real_slurm.lacks("pmix"):
        pytest.skip(f"NO PMIX in this Slurm: no ranks were started in an image by srun: {why}")
    assert checks.mpi(runtime.detect(), mpi_image.path)["PMI of Slurm"] == ""
    found = lines(["srun", "-N2", "-n4", "--mpi=pmix", str(apptainer), "exec", str(mpi_image.path), *PYTHON])
    assert found == [f"rank {rank} of 4 sum 6" for rank in range(4)]
