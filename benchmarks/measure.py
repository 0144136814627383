"""Rows of a benchmark, and how its numbers are taken: medians of interleaved repetitions, with their spread.

CPU time comes from the kernel's scheduler (nanoseconds of every thread of a process), so that it says the same on a busy machine;
rates and latencies do not, and each row says how much of the machine was used by others meanwhile.
"""

import contextlib
import json
import mmap
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from beamtide import clock
from beamtide.version import __version__

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclass(slots=True)
class Beside:
    """What stands beside a measurement: a peer or a floor, by name, with the values of the same run."""

    name: str
    values: Sequence[float]


@dataclass(slots=True)
class Book:
    """The rows of one benchmark."""

    bench: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    sync_ms: list[float] = field(default_factory=list)
    _busy: "Busy" = field(default_factory=lambda: Busy())

    def sync(self, folder: pathlib.Path) -> None:
        """Measure the disk once more; the rows carry the median of what was measured so far."""
        self.sync_ms.append(disk_sync_ms(folder))

    def row(  # noqa: PLR0913  what a row holds
        self,
        metric: str,
        ours: Sequence[float],
        unit: str,
        better: Literal["higher", "lower"],
        *,
        peer: Beside | None = None,
        floor: Beside | None = None,
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Print a row and write it to the file of this benchmark."""
        row = {
            "bench": self.bench,
            "metric": metric,
            "ours": _rounded(statistics.median(ours)),
            "unit": unit,
            "better": better,
            **_beside("peer", peer),
            **_beside("floor", floor),
            "n": len(ours),
            "spread": [_rounded(min(ours)), _rounded(max(ours))],
            "machine": _machine()
            | {"others_cpu": self._busy.others(), "disk_sync_ms": self._disk(), "disk_sync_spread": self._disk_spread()},
            **notes,
        }
        self.rows.append(row)
        RESULTS.mkdir(exist_ok=True)
        text = "".join(json.dumps(one) + "\n" for one in self.rows)
        (RESULTS / f"{self.bench}.jsonl").write_text(text)
        print(json.dumps(row), flush=True)

    def table(self) -> None:
        """Print all rows for people."""
        table = Table(title=f"{self.bench}: median of n, disk sync {self._disk()} ms (measured between {self._disk_spread()})")
        for name in ("metric", "ours", "unit", "spread", "peer", "floor", "ours / floor", "floor is"):
            table.add_column(
                name, justify="left" if name in ("metric", "unit", "floor is") else "right", no_wrap=name == "metric"
            )
        for row in self.rows:
            ratio = f"{row['ours'] / row['floor']:.2f}" if row["floor"] else ""
            spread = " … ".join(f"{value:g}" for value in row["spread"])
            peer, floor = (f"{row[key]:g}" if row[key] is not None else "" for key in ("peer", "floor"))
            cells = (row["metric"], f"{row['ours']:g}", row["unit"], spread, peer, floor, ratio, row["floor_name"] or "")
            table.add_row(*cells)
        Console(width=max(120, Console().width)).print(table)

    def _disk_spread(self) -> list[float]:
        return [_rounded(min(self.sync_ms)), _rounded(max(self.sync_ms))] if self.sync_ms else []

    def _disk(self) -> float | None:
        return _rounded(statistics.median(self.sync_ms)) if self.sync_ms else None


class Busy:
    """How much of the machine others use: all CPU time, without ours and that of processes we have waited for."""

    def __init__(self) -> None:
        self._start = (clock.monotonic(), _all_cpu(), _own_cpu())

    def others(self) -> float:
        """Return the share since the start, 0 to 1. Processes of ours that still run are counted as others."""
        wall, everyone, own = (
            now - then for now, then in zip((clock.monotonic(), _all_cpu(), _own_cpu()), self._start, strict=True)
        )
        return round(max(0.0, (everyone - own) / (wall * (os.cpu_count() or 1))), 2)


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder on the disk to measure: TMPDIR says which."""
    return tempfile.TemporaryDirectory(prefix="beamtide-bench-")


class HeldMemory:
    """Memory that this machine has, given up piece by piece for what is stored meanwhile.

    A virtual machine gives what is free back to its host within seconds, and pays for the next touch of each page: seen here,
    6 to 10 us instead of 2, which halves the rate of a gigabyte stored, depending on what ran before. Twice what is stored is
    enough: messages need memory too.
    """

    def __init__(self, size: int) -> None:
        self._mapped, self._given = mmap.mmap(-1, size), 0
        np.frombuffer(self._mapped, np.uint8)[:: mmap.PAGESIZE] = 1

    def give(self, size: int) -> None:
        """Give up so much more of it."""
        if self._given + size <= len(self._mapped):
            self._mapped.madvise(mmap.MADV_DONTNEED, self._given, size)
            self._given += size


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that all threads of a process have used, user and kernel, in steps of the kernel's tick (10 ms)."""
    total = 0
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(pid: int) -> int:
    """Return the memory of a process in bytes."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def environment_with(name: str, *packages: str) -> pathlib.Path | None:
    """Return a Python that has a peer's packages, installed once below results/; None, and a line that says so, if it cannot."""
    folder = pathlib.Path(__file__).parent / "results" / name
    python, made = folder / "bin" / "python", folder / "installed"
    if not made.exists():
        commands = [[sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "--quiet", *packages]]
        if any(subprocess.run(command, check=False).returncode for command in commands):
            print(f"{' and '.join(packages)} could not be installed, and are left out")
            return None
        made.touch()
    return python


def private_peaks(task: Callable[[], object], times: int = 5) -> list[float]:
    """Return the most memory that a forked process had for itself while it did a task, in MB: what it does not share with us."""
    return [_private_peak(task) for _ in range(times)]


def _private_peak(task: Callable[[], object]) -> float:
    pid = os.fork()
    if not pid:
        task()
        os._exit(0)
    most = 0
    while not os.waitpid(pid, os.WNOHANG)[0]:
        with contextlib.suppress(OSError):
            rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            most = max(most, sum(int(line.split()[1]) for line in rollup if line.startswith("Private_")))
        clock.pause(0.002)
    return most / 1000


def disk_sync_ms(folder: pathlib.Path, times: int = 60) -> float:
    """Return the median time of a synced append of 4 KiB."""
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(times):
            began = clock.monotonic()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            taken.append(1e3 * (clock.monotonic() - began))
    return statistics.median(taken)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


def _beside(kind: str, beside: Beside | None) -> dict[str, Any]:
    if beside is None:
        return {kind: None, f"{kind}_name": None}
    return {kind: _rounded(statistics.median(beside.values)), f"{kind}_name": beside.name}


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "beamtide": __version__,
        "load1": round(os.getloadavg()[0], 2),
    }


def _all_cpu() -> float:
    fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
