"""Ptychography as a site runs it: ranks on two nodes of a real Slurm, started by srun, each in the image of kind worker-mpi."""

import os
import pathlib
from importlib import resources

import h5py
import numpy as np
import pytest

from beamline_side.hosts import one_scan
from beamtide.config.models import Deployment
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import reading
from tests.builders.sites import scaling_for, write_site
from tests.containers.conftest import Image
from tests.ports import free_ports
from tests.ptycho_scans import Truth, simulate
from tests.slurm.cluster import Cluster
from tests.unit.test_ptycho_engines import against_truth

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(550)]
SIDE = 8
SCAN = Scan(id=ScanId("scan_00009"), shape=(SIDE, SIDE), axes=("y", "x"))


def deployment_for(folder: pathlib.Path, truth: Truth, image: Image) -> Deployment:
    for name in ("raw", "logs", "templates"):
        (folder / name).mkdir()
    packaged = resources.files("sbatch_templates").joinpath("ptychography.sh.j2").read_text()
    module = f"{{% block prepare %}}\nexport PATH={os.environ['PATH']}\n"  # where a site would load one
    (folder / "templates" / "ptychography.sh.j2").write_text(packaged.replace("{% block prepare %}\n", module))
    with h5py.File(folder / "raw" / f"{SCAN.id}.h5", "w") as file:
        file["frames"], file["positions"] = truth.frames, truth.arrays()["positions"]
    np.save(folder / "probe.npy", truth.start())
    options = {"frames": "/frames", "positions": "/positions"}
    pipeline = {
        "modality": "ptychography",
        "source": {"match": "{scan}.h5", "frames_per_task": "scan", "options": options},
        "settings": truth.settings(recipe="RAAR(0.85) 25 -> LSQML 10", device="cpu", probe={"kind": "former"}),
        "calibration": {"probe": "probe.npy"},
        "job": {"ranks": 2, "nodes": 2, "tasks_per_job": 1},
    }
    first = free_ports(20)
    more = {
        "launcher": "slurm",
        "network": {"bind": "127.0.0.1", "ports": f"{first}-{first + 19}"},
        "slurm": {"partitions": ["cpu"], "logs": str(folder / "logs"), "templates": str(folder / "templates"), "mpi": "pmix"},
        "container": {"runtime": "apptainer", "image": str(image.path), "digest": image.digest},
    }
    return write_site(folder, {"ptycho": pipeline}, site="cluster", scaling=scaling_for(1, tick=0.2, idle_exit=3), **more)


def test_ranks_on_two_nodes_find_the_object(mpi_image: Image, real_slurm: Cluster, tmp_path: pathlib.Path) -> None:
    if why := real_slurm.lacks("pmix"):
        pytest.skip(f"NO PMIX in this Slurm: no ranks were started in an image by srun: {why}")
    truth = simulate(side=SIDE)
    deployment = deployment_for(tmp_path, truth, mpi_image)
    nodes: set[str] = set()

    def look(_: object) -> None:
        jobs = [line.split() for line in real_slurm.run("squeue", "-h", "-o", "%D %j").splitlines()]
        nodes.update(count for count, name in jobs if "ptycho" in name)  # another test's jobs may still be leaving

    outcome = one_scan.run_scan(deployment, SCAN, look)
    logs = "\n".join(path.read_text(errors="replace") for path in deployment.site.slurm.logs.iterdir())
    assert {name: (row.done, row.abandoned) for name, row in outcome.last.pipelines.items()} == {"ptycho": (1, 0)}, logs
    assert "ranks=2" in logs
    assert nodes == {"2"}
    kept = reading.open(SCAN.id, processed=deployment.site.roots.processed)
    found = {name.removeprefix("ptycho/"): np.asarray(kept[name]) for name in kept}
    assert against_truth(truth, found).crossing > 0.35
    assert all(mpi_image.digest.encode() in path.read_bytes() for path in outcome.files if path.suffix == ".h5")
