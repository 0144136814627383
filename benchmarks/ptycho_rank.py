"""One rank of a benchmark: prints the median time of an iteration of the difference map, in seconds."""

import statistics

import numpy as np

from beamtide import clock
from benchmarks.ptycho import ROUNDS, frames
from cluster_side.modalities.ptychography import recipe
from cluster_side.modalities.ptychography.engines import run
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.engines.bounds import Bounds
from cluster_side.modalities.ptychography.engines.propagators import far_field
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, members
from cluster_side.worker.mpi.ranks import Ranks


def main() -> None:
    """Measure on this rank."""
    counts, positions, probe = frames()
    team, backend = Ranks(), numpy_backend()
    bench = Bench(backend, far_field(backend, (counts.shape[1], counts.shape[2])), team)
    ours = members(np.arange(len(counts)), len(counts), team.rank, team.size)
    amplitudes = np.sqrt(counts[ours.own] * np.float32(bench.propagator.gain))
    pixels = positions - np.floor(positions.min(axis=0)) + 2
    size = np.ceil(pixels.max(axis=0)).astype(int) + np.asarray(probe.shape) + 2
    start = probe * np.sqrt(counts.sum(axis=(1, 2)).mean() / (np.abs(probe) ** 2).sum())
    state = ReconstructionState(
        backend.array(np.ones(size, complex)), backend.array(start[None]), pixels[ours.own], pixels[ours.own]
    )
    power = float(counts.sum(dtype=float)) * bench.propagator.gain
    stage = recipe.parse("DM 1")[0]
    engine = run.engine_for(stage, bench, Frames(amplitudes, None, power, ours), state, run.Plan((stage,)))
    taken = []
    for _ in range(2 * ROUNDS):
        began = clock.monotonic()
        engine.iterate(state, Bounds())
        taken.append(clock.monotonic() - began)
    if team.rank == 0:
        print(statistics.median(taken[2:]))


if __name__ == "__main__":
    main()
