"""A test that fails once and passes when it is repeated is listed; one that fails twice fails the run (real pytest processes)."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system
ROOT = pathlib.Path(__file__).parents[2]
PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert 1 == 2\n"
ONCE = """
import pathlib, pytest
@pytest.mark.parametrize("word", ["a b", "c::d"])
def test_wobbles(word):
    seen = pathlib.Path(__file__).with_name(word.replace(":", "-") + ".seen")
    there = seen.exists()
    seen.touch()
    assert there
"""
SKIPS = """
import pathlib, pytest
def test_hides():
    seen = pathlib.Path(__file__).with_name("hides.seen")
    if seen.exists():
        pytest.skip("it has failed before")
    seen.touch()
    assert False
"""
TEARDOWN = """
import pathlib, pytest
@pytest.fixture
def broom():
    yield
    seen = pathlib.Path(__file__).with_name("broom.seen")
    there = seen.exists()
    seen.touch()
    assert there
def test_leaves_dirt(broom): pass
"""
PLUGINS = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}
"""Other plugins take time to import."""


def done(folder: pathlib.Path, *runs: str, **files: str) -> tuple[int, list[str]]:
    """Write a suite, run it as `make test` does; return the exit code and the lines."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra\nmarkers = slow: the second run\n")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, ROOT / "tests" / "flaky.py", *runs]
    result = subprocess.run(command, cwd=folder, env=outside | PLUGINS, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.splitlines()


def test_nothing_is_flaky_where_all_pass(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", test_good=PASSES)
    assert code == 0
    assert lines[-1] == "0 flaky"
    assert " 1 passed in " in lines[-2], "the last line of pytest itself stays"


@pytest.mark.parametrize("options", ["-n 0", "-n 2 --dist loadfile"])
def test_what_passes_when_repeated_is_listed_and_the_run_passes(tmp_path: pathlib.Path, options: str) -> None:
    code, lines = done(tmp_path, options, test_good=PASSES, test_once=ONCE)
    assert code == 0
    assert sorted(lines[-3:-1]) == [f"FLAKY test_once.py::test_wobbles[{word}]" for word in ("a b", "c::d")]
    assert lines[-1] == "2 flaky"
    assert any(" 2 failed, 1 passed in " in line for line in lines)
    assert " 2 passed in " in lines[-4], "what passed before is not repeated"


def test_what_fails_twice_fails_the_run_and_is_not_flaky(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", test_good=PASSES, test_bad=FAILS)
    assert code == 1
    assert lines[-1] == "0 flaky"
    assert sum(line.startswith("FAILED test_bad.py::test_fails") for line in lines) == 2
    assert "FAILED TWICE test_bad.py::test_fails" in lines


def test_flaky_tests_are_also_listed_when_another_test_fails_twice(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", "-k good", test_bad=FAILS, test_once=ONCE, test_good=PASSES)
    assert code == 1
    assert lines[-1] == "2 flaky"
    assert sum("test session starts" in line for line in lines) == 2, "the next run is not begun"


def test_a_test_that_is_skipped_when_repeated_has_not_passed(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", test_skips=SKIPS)
    assert code == 1
    assert lines[-2:] == ["FAILED TWICE test_skips.py::test_hides", "0 flaky"]


def test_what_fails_while_it_is_taken_down_counts(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", test_teardown=TEARDOWN)
    assert code == 0
    assert lines[-2:] == ["FLAKY test_teardown.py::test_leaves_dirt", "1 flaky"]


def test_runs_follow_each_other_and_their_flaky_tests_are_listed_together(tmp_path: pathlib.Path) -> None:
    slow = "import pytest\npytestmark = pytest.mark.slow\n"
    code, lines = done(tmp_path, '-m "not slow"', "-m slow", test_one=ONCE, test_two=slow + TEARDOWN)
    assert code == 0
    assert lines[-1] == "3 flaky"
    assert "FLAKY test_two.py::test_leaves_dirt" in lines


@pytest.mark.parametrize(("options", "expected"), [("--no-such-option", 4), ("-k nothing", 5)])
def test_what_is_no_failed_test_is_not_repeated(tmp_path: pathlib.Path, options: str, expected: int) -> None:
    code, lines = done(tmp_path, options, test_good=PASSES)
    assert code == expected
    assert lines[-1] == "0 flaky"
    assert sum("test session starts" in line for line in lines) <= 1


def test_a_module_that_cannot_be_imported_fails_the_run(tmp_path: pathlib.Path) -> None:
    code, lines = done(tmp_path, "", test_broken="import nothing_of_that_name\n", test_good=PASSES)
    assert code in (1, 2)
    assert lines[-1] == "0 flaky"
