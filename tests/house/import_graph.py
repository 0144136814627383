"""The import graph of the house, read from the syntax trees: `python -m tests.house.import_graph` prints it as JSON.

An independent look at what import-linter checks: it shares no code with it, only the layers that `pyproject.toml` states.
"""

import ast
import json
import pathlib
import tomllib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("beamtide", "beamline_side", "cluster_side", "benchmarks")
Graph = dict[str, set[str]]


def graph(root: pathlib.Path = ROOT) -> Graph:
    """Return, for each module, the modules that it imports, also inside functions."""
    found = (path for package in PACKAGES for path in (root / package).rglob("*.py"))
    files = {
        name_of(path, root): path for path in found if "site-packages" not in path.parts
    }  # benchmarks keep peers beside them
    return {module: set(_imports(module, path, files.keys())) for module, path in files.items()}


def name_of(path: pathlib.Path, root: pathlib.Path) -> str:
    """Return the name of a module: "beamtide.pump" for beamtide/pump/__init__.py."""
    return path.relative_to(root).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def _imports(module: str, path: pathlib.Path, known: object) -> Iterator[str]:
    names = set(known)  # type: ignore[call-overload]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in wanted:
            while name and name not in names:
                name = name.rpartition(".")[0]
            if name and name != module:
                yield name


def rooms(found: Graph, container: str) -> Graph:
    """Return which direct children of a package import which of its other children."""
    inside: Graph = {}
    for module, imported in found.items():
        if module.startswith(f"{container}."):
            here = _room(container, module)
            there = {_room(container, name) for name in imported if name.startswith(f"{container}.")}
            inside.setdefault(here, set()).update(there - {here})
    return inside


def _room(container: str, module: str) -> str:
    return module.removeprefix(f"{container}.").partition(".")[0]


def containers(found: Graph) -> set[str]:
    """Return all packages."""
    return {".".join(parts[:at]) for parts in (module.split(".") for module in found) for at in range(1, len(parts))}


def circles(edges: Graph) -> list[str]:
    """Return what stands in or between circles: all that imports, and is imported, when the rest is taken away bit by bit."""
    left = {name: set(imported) for name, imported in edges.items()}
    while True:
        wanted = set().union(*left.values())
        free = [name for name, imported in left.items() if not imported & left.keys() or name not in wanted]
        if not free:
            return sorted(left)
        for name in free:
            del left[name]


def layers() -> dict[str, list[set[str]]]:
    """Return the layers of each package as `pyproject.toml` states them, the highest first."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {
        container: [set(map(str.strip, floor.replace(":", "|").split("|"))) for floor in contract["layers"]]
        for contract in stated
        if contract["type"] == "layers"
        for container in contract["containers"]
    }


def upward(edges: Graph, floors: list[set[str]]) -> list[str]:
    """Return the arrows from a lower layer to a higher one, or between two rooms of one layer."""
    height = {room: -number for number, floor in enumerate(floors) for room in floor}
    return sorted(
        f"{room} -> {other}"
        for room, imported in edges.items()
        for other in imported
        if room in height and other in height and height[other] >= height[room]
    )


if __name__ == "__main__":
    print(json.dumps({module: sorted(imported) for module, imported in sorted(graph().items())}, indent=1))
