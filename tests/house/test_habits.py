"""Habits are written down once: hooks, `make lint` and the tests run the same checks, and the front door names every target."""

import pathlib
import re
import shlex

import pytest
import yaml

from tests.house.test_house_rules import LINTERS

ROOT = pathlib.Path(__file__).parents[2]


def make_lint() -> list[list[str]]:
    """The commands of `make lint`, as words."""
    found = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    text = found.group(1).replace("\\\n", " ").replace("$(BIN)/", "").replace("@", "")
    return [shlex.split(command) for line in text.splitlines() for command in line.split("&&")]


def hooks() -> list[dict[str, object]]:
    """The hooks of pre-commit."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local", "a hook from elsewhere has a version of its own"
    found: list[dict[str, object]] = repository["hooks"]
    return found


def test_make_lint_runs_what_the_tests_run() -> None:
    assert sorted(make_lint()) == sorted(LINTERS)


def test_the_hooks_run_what_the_tests_run() -> None:
    commands = [shlex.split(str(hook["entry"])) for hook in hooks()]
    assert sorted([command[0].removeprefix(".venv/bin/"), *command[1:]] for command in commands) == sorted(LINTERS)
    assert all(command[0].startswith(".venv/bin/") for command in commands), "not a program of the same name elsewhere"


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["id"])
def test_a_hook_looks_at_the_whole_tree_whatever_is_committed(hook: dict[str, object]) -> None:
    assert hook["language"] == "system"
    assert hook["always_run"] is True
    assert hook["pass_filenames"] is False


def test_contributing_names_the_targets_that_contributors_need() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert {"test", "lint", "sabotage", "soak", "bench"} <= named <= targets


def test_contributing_names_every_marker() -> None:
    markers = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert markers
    assert not [marker for marker in markers if f"`{marker}`" not in text]
