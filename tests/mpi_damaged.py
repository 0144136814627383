"""One rank of a test: reconstruct a scan of which some frames are damaged, as a worker does, and save what rank 0 has."""

import pathlib
import sys

import numpy as np

from beamtide import registry
from cluster_side.modalities.context import Context
from cluster_side.modalities.ptychography.spec import MODALITY
from cluster_side.worker.mpi.ranks import Ranks
from cluster_side.worker.task import one_task
from cluster_side.worker.task.given import Given
from cluster_side.worker.task.ready_kernel import ReadyKernel
from tests.ptycho_scans import simulate


def main(folder: pathlib.Path) -> None:
    team, truth = Ranks(), simulate(side=6, size=32)
    context, values = Context(team, team.local_rank), truth.settings(recipe="LSQML 4", device="cpu")
    ready = ReadyKernel("", MODALITY.load(values, {}), MODALITY.declared(values), {}, context=True)  # type: ignore[arg-type]
    eiger, count = registry.find("formats", "eiger"), len(truth.frames)
    arrays = truth.arrays() | eiger.read(folder / "scan.h5", 0, count, {"frames": "frames"})
    found, given = one_task.readable(ready, Given(arrays, np.arange(count), count), context)
    others = ready.compute({name: np.asarray(array)[given.rows] for name, array in truth.arrays().items()}, context)
    if team.rank == 0:
        lost = [one.first for one in given.lost]
        why = [one.why for one in given.lost]
        np.savez(folder / "found.npz", ranks=team.size, lost=lost, why=why, of_others=others["object"], **found)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
