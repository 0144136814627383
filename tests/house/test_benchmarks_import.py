"""Benchmarks are run seldom, so a name that was changed in the packages would be missed there for long."""

import importlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
OURS = ("beamtide", "beamline_side", "cluster_side", "benchmarks", "tests")
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_finds_what_it_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    try:
        importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        pytest.skip(f"{error.name} is not installed")
