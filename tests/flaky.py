"""Run tests, repeat alone what failed, and list what passed only then: `python tests/flaky.py "" "-m long"`.

Each argument holds the options of one run of pytest. Tests of real processes race real time, and a machine may stall, so a
test that failed is repeated once, alone. If it does not pass then, the run fails, and later runs are not begun. If it passes, it
is flaky: the exit code stays, and the test is listed at the end, so that somebody mends it.
The same module is the plugin of pytest that writes down which tests failed and which passed.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import pytest

DONE, FAILED = 0, 1
INTERRUPTED = 130


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file of the outcomes."""
    parser.addoption("--outcomes", type=pathlib.Path, help="tests/flaky.py: write here which tests failed and which passed")


def pytest_configure(config: pytest.Config) -> None:
    """Write outcomes in the process that hears of all tests, not in the workers of xdist."""
    if config.option.outcomes and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(config.option.outcomes))


class Outcomes:
    """Which tests failed, at set-up and tear-down too, and which passed; a test that was skipped did neither."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.failed: list[str] = []
        self.passed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.passed:
            self.passed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        failed = list(dict.fromkeys(self.failed))
        self.file.write_text(json.dumps({"failed": failed, "passed": sorted(set(self.passed) - set(failed))}))


def run_pytest(options: Sequence[str]) -> tuple[int, list[str], set[str]]:
    """Run pytest; return its exit code, what failed and what passed."""
    with tempfile.TemporaryDirectory(prefix="outcomes-") as folder:
        file = pathlib.Path(folder) / "outcomes.json"
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "tests.flaky", "--outcomes", file, *options], check=False)
        outcomes = json.loads(file.read_text()) if file.exists() else {"failed": [], "passed": []}
    return done.returncode, outcomes["failed"], set(outcomes["passed"])


def run_twice(options: Sequence[str]) -> tuple[int, list[str]]:
    """Run tests, and what failed once more; return the exit code and the flaky tests."""
    code, failed, _ = run_pytest(options)
    if code != FAILED or not failed:
        return code, []
    print(f"\n{len(failed)} failed; each is repeated once, alone", flush=True)
    again, _, passed = run_pytest([*options, "-n", "0", *failed])
    for test in (lost := [test for test in failed if test not in passed]):
        print(f"FAILED TWICE {test}", flush=True)
    return again or (FAILED if lost else DONE), [test for test in failed if test in passed]


def main(runs: Sequence[str]) -> int:
    """Do all runs, up to the first that fails; list the flaky tests and return the exit code."""
    code, flaky = DONE, []
    try:
        for options in runs:
            code, more = run_twice(shlex.split(options))
            flaky += more
            if code:
                break
    except KeyboardInterrupt:
        code = INTERRUPTED
    print(*(f"FLAKY {test}" for test in flaky), f"{len(flaky)} flaky", sep="\n", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
