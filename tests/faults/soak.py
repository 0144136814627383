"""`make soak`: two thousand kills under a mixed load, then a time without, in which memory and descriptors must not grow.

    python tests/faults/soak.py [--kills 2000] [--seconds 120] [--seed 1]

Prints the audit (accepted = visible + dead + queued) and, per service, resident memory and open descriptors with their slopes
over the quiet time. Exit code 1: the audit failed. A first quiet quarter, in which caches fill, is left out of the slopes.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from beamtide import clock
from tests.faults.kills import rounds

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int:
    """Return the memory of a process in bytes."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def watch(pids: dict[str, int], seconds: float) -> None:
    """Look at all services once a second, and print how they grow."""
    began, times = clock.monotonic(), list[float]()
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in pids}
    while clock.monotonic() < began + seconds:
        times.append(clock.monotonic() - began)
        for name, pid in pids.items():
            seen[name].append((resident(pid), descriptors(pid)))
        clock.pause(1.0)
    start = len(times) // 4
    print(f"{'service':12} {'MiB':>8} {'MiB/h':>8} {'fds':>5} {'fds/h':>7}")
    for name, samples in seen.items():
        memory, files = np.array(samples[start:], float).T
        slopes = [3600 * np.polyfit(times[start:], values, 1)[0] if len(values) > 1 else 0.0 for values in (memory, files)]
        print(f"{name:12} {memory[-1] / 2**20:8.1f} {slopes[0] / 2**20:8.2f} {files[-1]:5.0f} {slopes[1]:7.1f}", flush=True)


def main() -> int:
    """Kill, watch, audit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the load goes on without kills")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beamtide-soak-") as folder:
        site = rounds(pathlib.Path(folder), chosen.seed, pause=0.05)
        began = clock.monotonic()
        try:
            count = site.run(chosen.kills, lambda pids: watch(pids, chosen.seconds))
        except AssertionError as error:
            print(f"FAILED: {error}")
            return 1
    print(
        f"{chosen.kills} kills in {clock.monotonic() - began:.0f} s: accepted {count.accepted} = visible {count.visible} "
        f"+ dead {count.dead} + queued {count.queued}; nothing lost, nothing doubled, nothing changed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
