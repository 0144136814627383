"""Sabotage the code, one line at a time, and see whether a test notices: `make sabotage`, or `python tests/sabotage/run.py WORD`.

Everything happens in copies below a temporary folder. A copy is what its tests import (this is checked first), and its tests
pass before it is sabotaged (this is checked too), so a failure is the sabotage's doing. Exit code 1: a sabotage survived.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.sabotage import anchors  # noqa: E402
from tests.sabotage.sabotages import SABOTAGES, Sabotage  # noqa: E402

PARTS = ("beamtide", "beamline_side", "cluster_side", "tests", "examples", "sbatch_templates")
SEEDS = "60"
LONGEST, WHOLE = 240, 1200
"""Seconds for the tests of a sabotage, and for all of them together."""
AT_ONCE = 2
IMPORTED = "import beamtide, beamline_side, cluster_side as c; print(beamtide.__file__, beamline_side.__file__, c.__file__)"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a sabotage: the test that noticed ("" = none), why not, and how long it took."""

    name: str
    caught_by: str
    trouble: str
    seconds: float


def copy_to(folder: pathlib.Path) -> None:
    """Copy what tests need."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def python(folder: pathlib.Path, *arguments: str, longest: float = LONGEST) -> tuple[int, str]:
    """Run Python on a copy; return its exit code (124: too slow) and what it printed."""
    data = os.environ.get("BEAMTIDE_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "BEAMTIDE_TEST_DATA": data}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=longest,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"not done after {longest:g} s"
    return done.returncode, done.stdout + done.stderr


def tests(folder: pathlib.Path, files: Sequence[str], longest: float) -> tuple[int, str]:
    """Run some tests of a copy up to the first failure."""
    how = ("-x", "-q", "-n0", "--tb=short", "-p", "no:cacheprovider", "--seeds", SEEDS)
    return python(folder, "-m", "pytest", *how, *files, longest=longest)


def check_untouched(folder: pathlib.Path) -> None:
    """Stop if a copy is not what is imported, or if its tests fail without any sabotage."""
    copy_to(folder)
    _, said = python(folder, "-c", IMPORTED)
    if not said.split() or any(not path.startswith(str(folder)) for path in said.split()):
        sys.exit(f"not the copy in {folder} is imported, but {said}")
    files = sorted({file for one in SABOTAGES for file in one.tests})
    code, said = tests(folder, files, WHOLE)
    if code:
        sys.exit(f"the tests fail without any sabotage:\n{said[-3000:]}")


def commit(sabotage: Sabotage, folder: pathlib.Path) -> Fate:
    """Sabotage a fresh copy, and see."""
    began = time.perf_counter()
    copy_to(folder)
    found = anchors.places(folder, sabotage.function, sabotage.old)
    if len(found) != 1:
        return Fate(sabotage.name, "", f"does not fit any more: {sabotage.function} was changed, write it anew", 0.0)
    found[0].path.write_text(anchors.replaced(found[0], sabotage.new))
    code, said = tests(folder, sabotage.tests, LONGEST)
    shutil.rmtree(folder)
    seconds = time.perf_counter() - began
    failed = re.search(r"^FAILED (\S+)", said, re.MULTILINE)
    if code == 1 and failed:
        return Fate(sabotage.name, failed.group(1).removeprefix("tests/"), "", seconds)
    if code == 0:
        return Fate(sabotage.name, "", f"SURVIVED {', '.join(sabotage.tests)}", seconds)
    return Fate(sabotage.name, "", f"no test failed, but pytest ended with {code}: {said[-300:]}", seconds)


def main(words: list[str]) -> int:
    """Try all sabotages, or those whose names hold one of the words; print a table."""
    chosen = [one for one in SABOTAGES if not words or any(word in one.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="sabotage-") as temporary, ThreadPoolExecutor(AT_ONCE) as pool:
        base = pathlib.Path(temporary)
        check_untouched(base / "untouched")
        survivors = 0
        for fate in pool.map(commit, chosen, [base / str(number) for number in range(len(chosen))]):
            survivors += not fate.caught_by
            print(f"{fate.name:50s} {fate.caught_by or fate.trouble:90s} {fate.seconds:6.1f} s", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} sabotages were caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
