"""One real Slurm for all tests that want it, started when the first asks for it; or one loud line that says why there is none."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, NoSlurm, require


@pytest.fixture(scope="session")
def real_slurm() -> Iterator[Cluster]:
    """A cluster of four nodes; its commands find it by SLURM_CONF."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="beamtide-slurm-"))
    cluster = Cluster(base)
    try:
        require()
        cluster.start()
    except NoSlurm as error:
        shutil.rmtree(base)
        pytest.skip(f"NO REAL SLURM, so nothing was tested on one: {error}")
    os.environ["SLURM_CONF"] = str(cluster.conf)
    yield cluster
    del os.environ["SLURM_CONF"]
    cluster.stop()
    shutil.rmtree(base, ignore_errors=True)
