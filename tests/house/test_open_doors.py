"""Nothing outside a plug-in knows it by name: formats, modalities and launchers are asked, so those of others are equals."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

from beamtide import registry

ROOT = pathlib.Path(__file__).parents[2]
WORDS = {"positions", "counters", "encoders", "hdf5", "cxi", "local", "lambda", "fabio", "maps"}
"""Names that are also words for something else."""
EXCEPT = (
    "cluster_side/modalities/",
    "cluster_side/scaling/simulation/",
    "beamline_side/simulation/",
    "beamline_side/hosts/demo.py",
    "beamtide/formats/recognise.py",
)
"""Where the plug-ins are themselves, scans that are made up, and words of advice, by which nothing is decided."""
ALLOWED = {
    ("beamtide/config/slurm.py", "slurm"): "its settings have a section of their own in the site file, and stood there first",
}


def strings(path: pathlib.Path) -> Iterator[str]:
    """All strings of a module that are not documentation."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.parametrize("package", ["beamtide", "beamline_side", "cluster_side"])
def test_no_plug_in_is_known_by_name(package: str) -> None:
    plugins = {name for group in ("formats", "modalities", "launchers") for name in registry.names(group)} - WORDS
    found = {
        (path.relative_to(ROOT).as_posix(), text.partition("/")[0])
        for path in (ROOT / package).rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(EXCEPT)
        for text in strings(path)
        if text.partition("/")[0] in plugins
    }
    assert not found - ALLOWED.keys()


def test_what_is_allowed_is_there() -> None:
    assert not [(file, name) for file, name in ALLOWED if name not in set(strings(ROOT / file))]
