"""Points: centre of mass, positions, counters and gridding, each on one core.

The floor of the centre of mass is numpy's sum over the same frames, one pass over memory; the peer is LiberTEM's centre of mass,
installed into a virtual environment of its own when it is first wanted, and left out where that cannot be done.
"""

import contextlib
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import numpy as np

from beamtide import clock, gridding, registry
from benchmarks.measure import Beside, Book, environment_with

REPEATS, POINTS = 7, 1_000_000
BYTES = 64 << 20


def run(book: Book) -> None:
    """Measure all of it."""
    for side in (128, 256, 512, 1024):
        _centre_of_mass(book, side)
    _columns(book)
    _gridding(book)


def _centre_of_mass(book: Book, side: int) -> None:
    count = BYTES // (2 * side * side)
    frames = np.random.default_rng(0).poisson(5, (count, side, side)).astype(np.uint16)
    kernel = registry.find("modalities", "dpc").load({}, {})
    ours, floor, peer = [], [], []
    with _libertem(count, side) as libertem:
        for _ in range(REPEATS):  # interleaved
            floor.append(count / _seconds(lambda: frames.sum(axis=(1, 2))))
            ours.append(count / _seconds(lambda: kernel({"frames": frames})))
            if libertem is not None:
                peer.append(count / libertem())
    beside = Beside("LiberTEM CoMUDF, inline executor", peer) if peer else None
    notes = {"frames": count, "dtype": "uint16", "best_ratio_to_floor": round(max(ours) / max(floor), 3)}
    book.row(f"com_frames_per_s_{side}", ours, "1/s", "higher", peer=beside, floor=Beside("numpy sum", floor), notes=notes)


def _columns(book: Book) -> None:
    random = np.random.default_rng(0)
    counts = random.integers(0, 2**32, POINTS).astype(float)
    axes = {name: {"field": name, "bits": 32, "resolution": 0.001} for name in ("u", "v")}
    lab = {"axes": ["u", "v"], "angle": 12.0, "skew": 0.1}
    positions = registry.find("modalities", "encoders").load({"axes": axes, "lab": lab}, {})
    counter = {"field": "u", "units": "1/s", "dark": 1.0, "rate": True, "dead_time": 1e-9}
    counters = registry.find("modalities", "counters").load({"counters": {"i0": counter}, "exposure": 0.01}, {})
    copies = [POINTS / _seconds(lambda: counts * 2.0 + 1.0) for _ in range(REPEATS)]
    for name, kernel in (("positions", positions), ("counters", counters)):
        ours = [POINTS / _seconds(lambda kernel=kernel: kernel({"u": counts, "v": counts})) for _ in range(REPEATS)]
        book.row(f"{name}_points_per_s", ours, "1/s", "higher", floor=Beside("one multiplication and addition", copies))


def _gridding(book: Book) -> None:
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 100, (2, POINTS))
    values, weights = random.normal(size=POINTS), random.uniform(1, 2, POINTS)
    grid = gridding.Grid(0.0, 0.0, 0.1, 0.1, (1000, 1000))
    ours, floor = [], []
    for _ in range(REPEATS):
        ours.append(_seconds(lambda: gridding.binned(grid, x, y, values, weights)))
        floor.append(_seconds(lambda: np.histogram2d(y, x, bins=1000, range=[[0, 100], [0, 100]], weights=values)))
    book.row("grid_1e6_s", ours, "s", "lower", peer=Beside("numpy histogram2d, one of the two sums", floor))


def _seconds(work: Callable[[], object]) -> float:
    began = clock.monotonic()
    work()
    return clock.monotonic() - began


@contextlib.contextmanager
def _libertem(count: int, side: int) -> Iterator[Callable[[], float] | None]:
    """Yield what runs LiberTEM once and returns the seconds it took; None where it cannot be installed."""
    if (python := environment_with("peer-libertem", "libertem")) is None:
        yield None
        return
    command = [python, pathlib.Path(__file__).with_name("points_peer.py"), str(count), str(side)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            yield None
            return

        def once() -> float:
            print("go", file=process.stdin, flush=True)
            return float(process.stdout.readline())

        yield once
        process.stdin.close()
