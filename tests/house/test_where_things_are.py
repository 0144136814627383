"""The README says where things are, and docs/architecture.md which folders there are: both must be true."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("beamtide", "beamline_side", "cluster_side")
ROWS = re.findall(r"^\| ([^|]+) \| `([\w.]+)` in `([\w/.]+)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE)


def defined(path: pathlib.Path) -> set[str]:
    """Return the functions and classes of a module, methods as Class.method."""
    tree = ast.parse(path.read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = {node.name for node in tree.body if isinstance(node, kinds)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, kinds)}
    return found


def test_the_readme_has_ten_such_lines() -> None:
    assert len(ROWS) == 10
    assert len({what for what, _, _ in ROWS}) == 10


@pytest.mark.parametrize(("what", "name", "file"), ROWS, ids=[what for what, _, _ in ROWS])
def test_it_is_there(what: str, name: str, file: str) -> None:
    assert (ROOT / file).exists(), f"{what}: there is no file {file}"
    assert name in defined(ROOT / file), f"{what}: {file} does not define {name}"


def test_the_folders_of_the_architecture_are_those_of_the_house() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    told = set(re.findall(r"^\| `(\w+/\w+)` \|", page, re.MULTILINE))
    there = {path.parent.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).glob("*/__init__.py")}
    assert told == there
