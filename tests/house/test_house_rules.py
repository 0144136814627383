"""The rules of the house, checked by machines: import law, style, types, sizes, names, docstrings, the front door."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("beamtide", "beamline_side", "cluster_side")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULE_AIM, FUNCTION_AIM, STOP_MODULE, STOP_FUNCTION = 250, 30, 400, 45
LONGER_MODULES: dict[str, str] = {
    "cluster_side/modalities/base.py": "what a modality is: the contract that its authors read in one page",
    "beamtide/config/models.py": "every key of the site file and of a pipeline file, with its meaning: one page to look it up",
    "beamline_side/cores/sorter/sorter.py": "one core: each event of the sorter is one method, and they share its invariants",
    "beamtide/messages/tasks.py": "one struct a message; all that is said about a task in its life stands together",
    "beamtide/client/client.py": "all that a client can ask of a site, one short method each: one page to look it up",
    "beamtide/config/site.py": "reading a site and finding everything that is wrong with it are one walk over the same files",
    "beamline_side/services/writer/writer.py": "one round over all products: what is new, what is written, what is in the way",
    "cluster_side/scaling/jobs/ledger.py": "one table of orders and jobs; known and uncertain answers are judged together",
}
"""Over the aim, under the stop, and why."""
LONGER_FUNCTIONS: set[str] = set()
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "data"}
BIN = pathlib.Path(sys.executable).parent
LINTERS = [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]


def name_of(path: pathlib.Path) -> str:
    """Path below the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = (first.end_lineno or 0) + 1 if told else node.lineno
    return (node.end_lineno or 0) - start + 1


@pytest.mark.parametrize("command", LINTERS, ids=["import law", "style", "format", "types"])
def test_the_linters_are_content(command: list[str]) -> None:
    tool = BIN / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed; pip install 'beamtide[dev]'")
    done = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_modules_are_short() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    over = {name: lines for name, lines in long.items() if lines > MODULE_AIM and name not in LONGER_MODULES}
    assert not over
    assert all(long[name] <= STOP_MODULE for name in LONGER_MODULES)


def test_the_list_of_longer_modules_is_needed() -> None:
    assert all(reason and len((ROOT / name).read_text().splitlines()) > MODULE_AIM for name, reason in LONGER_MODULES.items())


def test_functions_are_short() -> None:
    over = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where, lines = f"{name_of(path)}:{node.name}", body_lines(node)
                if lines > (STOP_FUNCTION if where in LONGER_FUNCTIONS else FUNCTION_AIM):
                    over.append(f"{where} has {lines} lines")
    assert not over


def test_names_say_something() -> None:
    assert not [name_of(path) for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE]


def test_every_module_opens_with_a_sentence() -> None:
    assert not [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]


def test_the_readme_shows_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_links_in_the_docs_lead_somewhere() -> None:
    broken = [
        f"{name_of(page)}: {target}"
        for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken
