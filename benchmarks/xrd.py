"""XRD: Eiger-4M frames from file to pattern on one core, the integration alone, and the start with and without the cache.

Frames are made up (Poisson, 5 counts a pixel, gaps as an Eiger marks them) and stored as bitshuffle-LZ4, as the detector does.
Peer: h5py with its filters and pyFAI's fastest stock method on one core, ('bbox', 'csc', 'cython'). Floor: reading the frame's
memory once. Seconds are of CPU time, so that others on the machine matter less; those of the start are of the clock.
"""

import functools
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import h5py
import hdf5plugin
import numpy as np

from beamtide import clock, registry
from beamtide.formats import eiger, lazy
from benchmarks.measure import Beside, Book, cpu_seconds, private_peaks, scratch
from cluster_side.modalities.pixels import valid_values
from cluster_side.modalities.xrd import geometry, model
from cluster_side.modalities.xrd.integrate import IntegrationTable
from cluster_side.modalities.xrd.spec import XrdSettings
from cluster_side.worker.task.prepared_arrays import keeper

SHAPE, FRAMES, ROUNDS = (2167, 2070), 4, 5
METHOD = ("bbox", "csc", "cython")
SETTINGS = {"shape": SHAPE, "orientation": 3, "points": 1000, "polarization": 0.99}
PONI = """Detector: Detector
Detector_config: {"pixel1": 7.5e-5, "pixel2": 7.5e-5, "max_shape": [2167, 2070]}
Distance: 0.2
Poni1: 0.08
Poni2: 0.078
Rot1: 0.01
Rot2: 0.005
Rot3: 0.0
Wavelength: 1e-10
"""
START = """
import pathlib, sys
from beamtide import registry
from cluster_side.worker.task.prepared_arrays import keeper
xrd = registry.find("modalities", "xrd")
keep = keeper(pathlib.Path(sys.argv[2]), "xrd") if len(sys.argv) > 2 else (lambda build: build())
kernel = xrd.load(%r, {"poni": pathlib.Path(sys.argv[1])}, keep)
import numpy
kernel({"frames": numpy.ones((1, 2167, 2070), "u4")})
"""


def run(book: Book) -> None:
    """Measure frames per second, the kernel, and the start."""
    with scratch() as name:
        folder = pathlib.Path(name)
        (folder / "x.poni").write_text(PONI)
        frames = _frames()
        np.save(folder / "mask.npy", (frames[0] == 2**32 - 1).astype("u1"))
        with h5py.File(folder / "eiger.h5", "w") as file:
            file.create_dataset("entry/data/data", data=frames, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
        calibration = {"poni": folder / "x.poni", "mask": folder / "mask.npy"}
        settings = XrdSettings.model_validate(SETTINGS)
        prepared = keeper(folder, "xrd")(lambda: model.prepare(settings, calibration))
        ai, mask = geometry.integrator(settings, calibration), np.load(folder / "mask.npy")
        peer = functools.partial(
            ai.integrate1d_ng, npt=1000, mask=mask, method=METHOD, polarization_factor=0.99, error_model="poisson"
        )
        _check(prepared, peer, frames[0])
        _files(book, folder, (calibration, peer))
        _kernel(book, prepared, peer, frames)
        _start(book, folder)


def _files(book: Book, folder: pathlib.Path, given: tuple[dict[str, pathlib.Path], Callable[..., object]]) -> None:
    calibration, peer = given
    kernel = registry.find("modalities", "xrd").load(SETTINGS, calibration, keeper(folder, "xrd"))

    def stock() -> None:
        with h5py.File(folder / "eiger.h5") as file:
            for number in range(FRAMES):
                peer(file["entry/data/data"][number])

    def ours() -> None:
        kernel(eiger.FORMAT.read(folder / "eiger.h5", 0, FRAMES, {}))

    taken = _interleaved({"ours": ours, "peer": stock})
    rates = {who: [FRAMES / second for second in seconds] for who, seconds in taken.items()}
    name = f"h5py and pyFAI {METHOD}"
    book.row("eiger4m_frames_per_s", rates["ours"], "1/s", "higher", peer=Beside(name, rates["peer"]))
    book.row("eiger4m_speedup", _ratios(taken), "x", "higher")
    ten = lazy.joined([eiger.FORMAT.read(folder / "eiger.h5", 0, count, {})["frames"] for count in (4, 4, 2)])
    book.row("worker_memory_10_frames_mb", private_peaks(lambda: kernel({"frames": ten})), "MB", "lower", notes={"bar": 150})


def _kernel(book: Book, prepared: object, peer: Callable[..., object], frames: np.ndarray) -> None:
    table, valid = IntegrationTable(prepared, "pattern"), valid_values(frames.dtype)  # type: ignore[arg-type]
    tasks = {
        "ours": lambda: [table.mean(table.integrate(frame, valid)) for frame in frames],
        "peer": lambda: [peer(frame) for frame in frames],
        "floor": lambda: [frame.sum(dtype=np.uint64) for frame in frames],
    }
    taken = _interleaved(tasks)
    each = {who: [1e3 * second / len(frames) for second in seconds] for who, seconds in taken.items()}
    beside = Beside(f"pyFAI {METHOD}", each["peer"]), Beside("sum of the frame", each["floor"])
    book.row("eiger4m_kernel_ms", each["ours"], "ms", "lower", peer=beside[0], floor=beside[1])
    book.row("eiger4m_kernel_speedup", _ratios(taken), "x", "higher")


def _start(book: Book, folder: pathlib.Path) -> None:
    """A fresh process to its first pattern: with what is kept, and the naive way that builds everything."""
    command = [sys.executable, "-c", START % SETTINGS, str(folder / "x.poni")]
    (folder / "start").mkdir()
    warm, naive = [*command, str(folder / "start")], command
    subprocess.run(warm, check=True)  # fills the cache
    tasks = {"ours": lambda: subprocess.run(warm, check=True), "peer": lambda: subprocess.run(naive, check=True)}
    taken = _interleaved(tasks, 3, clock.monotonic)
    book.row("first_task_s", taken["ours"], "s", "lower", peer=Beside("import pyFAI, build the matrix, integrate", taken["peer"]))


def _check(prepared: object, peer: Callable[..., object], frame: np.ndarray) -> None:
    table = IntegrationTable(prepared, "pattern")  # type: ignore[arg-type]
    ours, theirs = table.mean(table.integrate(frame, valid_values(frame.dtype)))[0], peer(frame)
    np.testing.assert_allclose(ours, theirs.intensity, rtol=1e-5)  # type: ignore[attr-defined]


def _frames() -> np.ndarray:
    frames = np.random.default_rng(0).poisson(5.0, (FRAMES, *SHAPE)).astype("u4")
    frames[:, 1029:1039] = 2**32 - 1
    frames[:, :, 1000:1010] = 2**32 - 1
    return frames


def _cpu() -> float:
    return cpu_seconds(os.getpid())


def _interleaved(
    tasks: dict[str, Callable[[], object]], rounds: int = ROUNDS, now: Callable[[], float] = _cpu
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {who: [] for who in tasks}
    for number in range(rounds + 1):  # the first round warms up
        for who, task in tasks.items():
            began = now()
            task()
            if number:
                taken[who].append(now() - began)
    return taken


def _ratios(taken: dict[str, list[float]]) -> list[float]:
    return [other / one for one, other in zip(taken["ours"], taken["peer"], strict=True)]
