"""The whole job, from files that are there to complete result files with maps and pictures: `beamtide run`, and a script.

The script is what a careful user would write with PyMca, pyFAI or numpy (`scripts/`), with the same outputs. The floor is reading
every byte once, the kernel alone on all cores, and writing every byte of the results once with one sync at the end. All files are
in memory on both sides; `run` starts cold each time: no services, no prepared arrays, no state. They take turns.
CPU seconds are those of all processes; memory is the most that all of them held together (PSS, shared pages counted once), in a
run of its own that is not timed.
"""

import contextlib
import ctypes
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from beamtide import clock
from benchmarks import whole_floor
from benchmarks.measure import Beside, Book, scratch
from benchmarks.whole_scans import CASES, ID, Case

ROUNDS = int(os.environ.get("BEAMTIDE_BENCH_ROUNDS", "5"))
WANTED = os.environ.get("BEAMTIDE_BENCH_CASES", "").split()
SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER` of prctl: what our children leave behind becomes our child, so that its CPU time is counted."""


def run(book: Book) -> None:
    """Measure each scan."""
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    for case in CASES:
        if not WANTED or case.metric in WANTED:
            with scratch() as name:
                _case(book, case, pathlib.Path(name))


def _case(book: Book, case: Case, folder: pathlib.Path) -> None:
    case.install(folder)
    book.sync(folder)
    commands = {"ours": _run(case, folder), "script": _script(case, folder)}
    seconds: dict[str, list[float]] = {"ours": [], "script": [], "floor": []}
    cpu: dict[str, list[float]] = {"ours": [], "script": []}
    for number in range(ROUNDS + 1):  # the first warms up
        for who, command in commands.items():
            wall, used = _timed(command, folder)
            if number:
                seconds[who].append(wall)
                cpu[who].append(used)
        if number:
            seconds["floor"].append(whole_floor.seconds(case, folder))
    memory = {who: _most_memory(command, folder) for who, command in commands.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["ours"], seconds["script"], strict=True)]
    notes = {
        "to_script": round(sorted(ratios)[len(ratios) // 2], 3),
        "cpu_s": {who: round(sorted(values)[len(values) // 2], 2) for who, values in cpu.items()},
        "memory_mb": {who: round(size / 1e6) for who, size in memory.items()},
        "points": case.shape[0] * case.shape[1],
    }
    beside = Beside("a careful user's script", seconds["script"]), Beside("read, kernel, write", seconds["floor"])
    book.row(case.metric, seconds["ours"], "s", "lower", peer=beside[0], floor=beside[1], notes=notes)


def _run(case: Case, folder: pathlib.Path) -> list[str]:
    shape = "x".join(map(str, case.shape))
    return [sys.executable, "-m", "beamtide", "run", ID, "-c", str(folder / "site" / "site.yaml"), "--shape", shape, "--json"]


def _script(case: Case, folder: pathlib.Path) -> list[str]:
    program = pathlib.Path(__file__).parent / "scripts" / f"{case.script}.py"
    words = (folder / "raw", ID, folder / "site" / case.calibration, folder / "by_script", *case.shape)
    return [sys.executable, str(program), *map(str, words)]


def _timed(command: Sequence[str], folder: pathlib.Path) -> tuple[float, float]:
    """Run a command cold; return seconds of the clock and of the CPU."""
    for name in ("processed", "state", "by_script"):
        shutil.rmtree(folder / name, ignore_errors=True)
    used, began = _children_cpu(), clock.monotonic()
    with (folder / "log").open("wb") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    wall = clock.monotonic() - began
    while _reaped():
        pass
    return wall, _children_cpu() - used


def _reaped() -> bool:
    """Wait for one more child, also one that was left to us; return whether there was one."""
    try:
        return os.waitpid(-1, 0)[0] > 0
    except ChildProcessError:
        return False


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _most_memory(command: Sequence[str], folder: pathlib.Path) -> int:
    """Return the most bytes that a command and its descendants held together while it ran."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            most[0] = max(most[0], sum(map(_share, _descendants(os.getpid()))))

    watching = threading.Thread(target=watch)
    watching.start()
    _timed(command, folder)
    over.set()
    watching.join()
    return most[0]


def _descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # it has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            children = [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
            for child in children:
                yield child
                yield from _descendants(child)


def _share(pid: int) -> int:
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it has just ended
        pass
    return 0
