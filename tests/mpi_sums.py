"""One rank of a test: reconstruct a simulated scan with so many ranks, and save what rank 0 has."""

import pathlib
import sys

import numpy as np

from cluster_side.modalities.context import Context
from cluster_side.modalities.ptychography.kernel import load
from cluster_side.modalities.ptychography.spec import PtychographySettings
from cluster_side.worker.mpi.ranks import Ranks
from tests.ptycho_scans import simulate

RECIPE = "RAAR 4 -> rPIE(0.1, batch 8) 1 -> LSQML 4"


def main(target: pathlib.Path) -> None:
    team = Ranks()
    truth = simulate(side=5, size=32, modes=2, wrong=0.5)
    refine = {"positions_after": 2, "flux": True, "background": True}
    settings = PtychographySettings(**truth.settings(recipe=RECIPE, device="cpu", refine=refine) | {"modes": 2})
    found = load(settings, {})(truth.arrays(), Context(team, team.local_rank))
    if team.rank == 0:
        np.savez(target, ranks=team.size, **found)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
