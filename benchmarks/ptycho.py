"""Ptychography on one core: seconds per iteration on 516 frames of 128 x 128, beside the transforms that nobody can save.

The floor of an iteration is one forward and one inverse transform of all frames by the same library, single precision, in place,
in blocks that stay in the cache. The peer is pty-chi's LSQML, when a Python that has it is named in PTYCHI_PYTHON; it
reconstructs the same frames in the same run, single-threaded. Times are CPU times, so that others do not count.
Without measured frames (BEAMTIDE_TEST_DATA) the frames are simulated.
"""

import bz2
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Beside, Book, cpu_seconds
from cluster_side.modalities.context import Alone
from cluster_side.modalities.ptychography import recipe
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.engines.bounds import Bounds
from cluster_side.modalities.ptychography.engines.propagators import far_field
from cluster_side.modalities.ptychography.engines.run import Engine, Plan, engine_for
from cluster_side.modalities.ptychography.engines.state import Bench, Frames, ReconstructionState, members

ROUNDS = 5
PEER = pathlib.Path(__file__).with_name("ptychi_peer.py")


def run(book: Book) -> None:
    """Measure iterations."""
    counts, positions, probe = frames()
    engines = {name: _engine(text, counts, positions, probe) for name, text in (("dm", "DM 1"), ("lsqml", "LSQML 1"))}
    floor: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        floor.append(_floor(counts.shape))
        for name, (engine, state) in engines.items():
            began = cpu_seconds(os.getpid())
            engine.iterate(state, Bounds())
            taken[name].append(cpu_seconds(os.getpid()) - began)
    peer = _peer(counts, positions, probe)
    beside = Beside("one forward and one inverse transform of all frames", floor)
    notes = {"frames": list(counts.shape), "modes": 1}
    book.row("dm_s_per_iter", taken["dm"], "s", "lower", floor=beside, notes=notes)
    errors = notes | {"error": round(engines["lsqml"][1].errors[-1], 5)} | ({"peer_error": peer[1]} if peer else {})
    other = Beside("pty-chi LSQML", peer[0]) if peer else None
    book.row("lsqml_s_per_iter", taken["lsqml"], "s", "lower", peer=other, floor=beside, notes=errors)
    _ranks(book)


def frames() -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.complex64]]:
    """Return counts (n, 128, 128), positions in pixels, and a first probe (128, 128)."""
    folder = pathlib.Path(os.environ.get("BEAMTIDE_TEST_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
    measured = folder / "ptychography" / "siemens-star-small.npz.bz2"
    if not measured.is_file():
        rng = np.random.default_rng(0)
        y, x = np.mgrid[-64:64, -64:64]
        probe = (np.exp(-(y * y + x * x) / 800) * np.exp(1j * (y * y + x * x) / 300)).astype(np.complex64)
        counts = rng.poisson(np.abs(np.fft.fft2(probe)) ** 2 / 100 * rng.uniform(0.5, 1.5, (516, 1, 1)))
        return counts.astype(np.float32), rng.uniform(0, 330, (516, 2)), probe
    with bz2.open(measured) as file:
        stored = np.load(file)
        return stored["data"][0], stored["scan"][0].astype(float), stored["probe"][0, 0, 0, 0]


def _engine(text: str, counts: NDArray[Any], positions: NDArray[Any], probe: NDArray[Any]) -> tuple[Engine, ReconstructionState]:
    backend = numpy_backend()
    shape = counts.shape[1], counts.shape[2]
    bench = Bench(backend, far_field(backend, shape), Alone())
    ours = members(np.arange(len(counts)), len(counts), 0, 1)
    amplitudes = np.sqrt(counts[ours.own] * np.float32(bench.propagator.gain))
    power = float((amplitudes.astype(float) ** 2).sum())
    measured = Frames(amplitudes, None, power, ours)
    pixels = (positions - np.floor(positions.min(axis=0)) + 2)[ours.own]
    start = probe * np.sqrt(counts.sum(axis=(1, 2)).mean() / (np.abs(probe) ** 2).sum())
    size = np.ceil(pixels.max(axis=0)).astype(int) + np.asarray(shape) + 2
    state = ReconstructionState(backend.array(np.ones(size, complex)), backend.array(start[None]), pixels, pixels.copy())
    stage = recipe.parse(text)[0]
    engine = engine_for(stage, bench, measured, state, Plan((stage,)))
    engine.iterate(state, Bounds())  # plans the transforms
    return engine, state


def _floor(shape: tuple[int, ...]) -> float:
    backend = numpy_backend()
    block = max(1, backend.block_bytes // (8 * shape[1] * shape[2]))
    waves = backend.array(np.ones((block, 1, *shape[1:]), np.complex64))
    backend.ifft2(backend.fft2(waves))
    began = cpu_seconds(os.getpid())
    for _ in range(shape[0] // block):
        waves = backend.ifft2(backend.fft2(waves))
        waves *= 1 / waves[0, 0, 0, 0]  # keeps the numbers finite
    return cpu_seconds(os.getpid()) - began


def _peer(counts: NDArray[Any], positions: NDArray[Any], probe: NDArray[Any]) -> tuple[list[float], float] | None:
    python = os.environ.get("PTYCHI_PYTHON")
    if not python:
        print("no peer: PTYCHI_PYTHON names no Python that has pty-chi (pip install ptychi)", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as folder:
        given = pathlib.Path(folder) / "scan.npz"
        np.savez(given, counts=counts, positions=positions, probe=probe)
        done = subprocess.run([python, PEER, given, str(ROUNDS)], check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], round(answer["error"], 5)


def _ranks(book: Book) -> None:
    """Compare two ranks with one, on as many cores."""
    mpiexec = pathlib.Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists() or (os.cpu_count() or 1) < 2:
        print("no two ranks: needs 'beamtide[mpi]' and two cores", file=sys.stderr)
        return
    ratios = []
    for _ in range(3):
        seconds = []
        for ranks in (1, 2):
            command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "benchmarks.ptycho_rank"]
            done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
            seconds.append(float(done.stdout.split()[-1]))
        ratios.append(seconds[0] / seconds[1])
    book.row("speedup_2_ranks", ratios, "1", "higher", notes={"recipe": "DM", "ideal": 2})
