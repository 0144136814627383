"""Ptychography over real MPI ranks: the same object for any number of them; a rank that is killed gives the task back."""

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import h5py
import hdf5plugin
import numpy as np
import pytest

from beamline_side.cores.sink.previews import SinkWithPreviews
from beamline_side.cores.sink.sink import SinkMachine
from beamtide.client.client import newest_preview
from beamtide.config import settings
from beamtide.config.models import Deployment
from beamtide.messages.results import StoreRequest
from beamtide.messages.tasks import Beat, Task, TaskDone, TaskFailed
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Caller, Pump
from beamtide.session import Session
from cluster_side.modalities.ptychography.engines.state import members
from cluster_side.worker.task import ready_kernel
from tests.builders.cores import pumping
from tests.builders.sites import write_site
from tests.builders.tasks import make_input, make_task
from tests.ptycho_scans import simulate
from tests.stories.shelf import Shelf
from tests.system.test_prefork_pool import beamline

MPIEXEC = pathlib.Path(sys.executable).parent / "mpiexec"
ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def _mpi() -> None:
    pytest.importorskip("mpi4py", reason="no MPI: pip install 'beamtide[mpi]'")
    if not MPIEXEC.exists():
        pytest.skip(f"no {MPIEXEC}: pip install 'beamtide[mpi]'")


def solve(ranks: int, target: pathlib.Path) -> dict[str, np.ndarray]:
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.mpi_sums", str(target)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with np.load(target) as found:
        return dict(found)


@pytest.mark.parametrize("ranks", [2, *(pytest.param(ranks, marks=pytest.mark.long) for ranks in (3, 4))])
def test_any_number_of_ranks_finds_the_same(ranks: int, tmp_path: pathlib.Path) -> None:
    alone, together = solve(1, tmp_path / "alone.npz"), solve(ranks, tmp_path / "together.npz")
    assert together["ranks"] == ranks
    for name in ("object", "probe", "error"):
        assert np.linalg.norm(together[name] - alone[name]) <= 1e-4 * np.linalg.norm(alone[name]), name
    np.testing.assert_allclose(together["position_x_refined"], alone["position_x_refined"], atol=1e-12)
    judged = [name for name in alone if name.startswith("quality/")]
    assert {"quality/verdict", "quality/advice", "quality/positions", "quality/explained", "quality/other_axes"} <= set(judged)
    for name in judged:
        if alone[name].dtype.kind == "S":
            assert together[name] == alone[name], name
        else:
            np.testing.assert_allclose(together[name], alone[name], rtol=5e-3, atol=5e-4, err_msg=name)


def deployment_for(folder: pathlib.Path, recipe_text: str, ranks: int = 2) -> Deployment:
    """A site with one pipeline of two ranks, and a simulated scan in a file."""
    for name in ("raw", "state/cache"):
        (folder / name).mkdir(parents=True)
    truth = simulate(side=6, size=32)
    with h5py.File(folder / "raw" / "scan.h5", "w") as file:
        file["frames"], file["positions"] = truth.frames, truth.arrays()["positions"]
    pipeline = {
        "modality": "ptychography",
        "source": {"match": "*.h5", "frames_per_task": "scan", "options": {"frames": "/frames", "positions": "/positions"}},
        "settings": truth.settings(recipe=recipe_text, device="cpu"),
        "job": {"ranks": ranks, "tasks_per_job": 1},
    }
    deployment = write_site(folder, {"toy": pipeline}, leases={"beat": 0.1})
    deployment.sockets().mkdir(mode=0o700, exist_ok=True, parents=True)
    prepared = settings.document_for(deployment.pipelines["toy"], folder)
    ready_kernel.prepare(prepared, deployment.site.state / "cache")
    return deployment


def whole_scan(deployment: Deployment) -> Task:
    digest = settings.document_for(deployment.pipelines["toy"], deployment.file.parent).digest
    columns = {"frames": "/frames", "positions": "/positions"}
    given = make_input("scan.h5", last=36, options=columns)
    return make_task(stop=36, id="s/0", pipeline="toy", modality="ptychography", inputs=(given,), settings=digest)


def start(deployment: Deployment, ranks: int, log: pathlib.Path) -> subprocess.Popen[bytes]:
    command = [
        MPIEXEC,
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "beamtide",
        "work",
        "--config",
        deployment.file,
        "--pipeline",
        "toy",
    ]
    with log.open("wb") as out:
        return subprocess.Popen(
            [*map(str, command), "--idle-exit", "1"], stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def parent_of(process: int) -> int:
    """Return the parent of a process, -1 if there is no such process any more."""
    try:
        return int(pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def sibling_of(process: int) -> int:
    """Return the other rank: the other process of mpirun."""
    parent, everybody = parent_of(process), [int(entry.name) for entry in pathlib.Path("/proc").glob("[0-9]*")]
    return next(other for other in everybody if other != process and parent_of(other) == parent)


@contextmanager
def a_sink(deployment: Deployment) -> Iterator[None]:
    """The real sink, which shows previews."""
    card = ComponentCard(name="sink", kind="sink", address=deployment.address("sink"))
    with pumping(Pump(SinkWithPreviews(SinkMachine(Shelf())), Session(card), {})):
        yield


@pytest.mark.long
def test_two_ranks_do_a_task_and_report_progress(tmp_path: pathlib.Path) -> None:
    deployment = deployment_for(tmp_path, "LSQML 1500")  # enough for a few beats on any processor
    with beamline(deployment) as line, a_sink(deployment):
        line.tasks.append(whole_scan(deployment))
        process = start(deployment, 2, tmp_path / "log")
        with Caller() as caller:
            line.wait_for(lambda: any(beat.progress > 0.5 for beat in line.of(Beat)) or line.of(TaskDone), 60)
            shown = set(newest_preview(caller, deployment, "s", "toy")[1])
        line.wait_for(lambda: line.of(TaskDone), 60)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
        assert [one.task.id for one in line.of(StoreRequest)] == ["s/0"]
        assert len(line.leases) == 1
        assert shown == {"object", "object_phase", "object_amplitude", "object_x", "object_y", "probe", "error", "pixel_size"}
        assert max(beat.progress for beat in line.of(Beat)) > 0
        arrays = next(arrays for _, message, arrays in line.heard if isinstance(message, StoreRequest))
        assert arrays["error"][-1] < 0.1


@pytest.mark.long
@pytest.mark.parametrize("victim", ["rank 0", "rank 1"])
def test_a_killed_rank_gives_the_task_back(victim: str, tmp_path: pathlib.Path) -> None:
    deployment = deployment_for(tmp_path, "LSQML 60")
    with beamline(deployment) as line:
        line.tasks.append(whole_scan(deployment))
        process = start(deployment, 2, tmp_path / "log")
        line.wait_for(lambda: any(beat.progress > 0 for beat in line.of(Beat)), 60)
        leader = int(line.leases[0][0].rpartition("-")[2])
        os.kill(leader if victim == "rank 0" else sibling_of(leader), signal.SIGKILL)
        line.wait_for(lambda: line.of(TaskFailed), 30)
        assert process.wait(30) != 0
        failed = line.of(TaskFailed)
        assert [(one.cause, one.worker) for one in failed] == [("infra", line.leases[0][0])]
        assert "a rank died" in failed[0].reason
        assert not line.of(StoreRequest)
        line.tasks.append(whole_scan(deployment))
        process = start(deployment, 2, tmp_path / "log2")
        line.wait_for(lambda: line.of(TaskDone), 90)
        assert process.wait(30) == 0
        assert len(line.of(StoreRequest)) == 1


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_one_rank_cannot_read_is_a_hole_for_all(ranks: int, tmp_path: pathlib.Path) -> None:
    """Each rank reads its own frames, and some of both are damaged: all go on without them."""
    damaged = sorted({*members(np.arange(36), 36, 0, 2).own[[3, 9]], *members(np.arange(36), 36, 1, 2).own[[0]]})
    frames = simulate(side=6, size=32).frames
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        stored = file.create_dataset("frames", data=frames, chunks=(1, *frames.shape[1:]), **hdf5plugin.Bitshuffle())
        for number in damaged:
            stored.id.write_direct_chunk((number, 0, 0), b"\xff" * 40)
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "tests.mpi_damaged", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with np.load(tmp_path / "found.npz") as saved:
        found = dict(saved)
    assert found["ranks"] == ranks
    np.testing.assert_array_equal(found["lost"], damaged)
    for number, why in zip(damaged, found["why"], strict=True):
        assert f"frame {number} of /frames cannot be decompressed" in why
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found["position_x_used"])), damaged)
    assert np.linalg.norm(found["object"] - found["of_others"]) <= 1e-4 * np.linalg.norm(found["of_others"])


@pytest.mark.long
def test_a_told_job_hands_its_task_back(tmp_path: pathlib.Path) -> None:
    deployment = deployment_for(tmp_path, "LSQML 3000")
    with beamline(deployment) as line:
        line.tasks.append(whole_scan(deployment))
        process = start(deployment, 2, tmp_path / "log")
        line.wait_for(lambda: any(beat.progress > 0 for beat in line.of(Beat)), 60)
        os.kill(int(line.leases[0][0].rpartition("-")[2]), signal.SIGTERM)
        line.wait_for(lambda: line.of(TaskFailed), 30)
        process.wait(30)
        assert [one.cause for one in line.of(TaskFailed)] == ["handback"]


def test_ranks_that_are_not_as_many_as_wanted_take_no_task(tmp_path: pathlib.Path) -> None:
    deployment = deployment_for(tmp_path, "LSQML 1", ranks=3)
    with beamline(deployment) as line:
        line.tasks.append(whole_scan(deployment))
        process = start(deployment, 1, tmp_path / "log")
        assert process.wait(60) == 2
        log = (tmp_path / "log").read_text()
        assert "job.ranks is 3, but this MPI program has 1" in log
        assert "Traceback" not in log
        assert not line.leases
