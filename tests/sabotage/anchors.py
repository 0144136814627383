"""Find the statement or expression that a sabotage replaces, by function and structure, so that moving code breaks no sabotage.

An anchor is a function ("LeaseTable.renew", "share", "" for the top of a module) and code. The code matches a node of the
function's syntax tree with the same structure, wherever the function stands and however it is laid out. C has no tree here: the
"function" is the file's name, and the code is its text.
"""

import ast
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

PACKAGES = ("beamtide", "beamline_side", "cluster_side")


@dataclass(frozen=True, slots=True)
class Place:
    """What stands where: characters `start` to `stop` of `path`."""

    path: pathlib.Path
    start: int
    stop: int


def places(root: pathlib.Path, function: str, code: str) -> list[Place]:
    """Return where the code stands in functions of that name below `root`; a usable anchor has one place."""
    if function.endswith(".c"):
        return list(_in_text(root, function, code))
    wanted = [ast.dump(node) for node in _parsed(code)]
    return [place for path, scope in _functions(root).get(function, ()) for place in _in_scope(path, scope, wanted)]


def replaced(place: Place, code: str) -> str:
    """Return the file's text with other code at a place; no code at all is `pass`."""
    text = place.path.read_text()
    column = place.start - text.rfind("\n", 0, place.start) - 1
    body = (code or "pass").replace("\n", "\n" + " " * column)
    return text[: place.start] + body + text[place.stop :]


def _parsed(code: str) -> list[ast.AST]:
    """Return an expression, or one or more statements."""
    try:
        return [ast.parse(code, mode="eval").body]
    except SyntaxError:
        return list(ast.parse(code).body)


def _in_text(root: pathlib.Path, name: str, code: str) -> Iterator[Place]:
    for path in (path for package in PACKAGES for path in (root / package).rglob(name)):
        at = (text := path.read_text()).find(code)
        while at >= 0:
            yield Place(path, at, at + len(code))
            at = text.find(code, at + 1)


@lru_cache(maxsize=2)  # two copies are tried at once, and each tree takes tens of MB
def _functions(root: pathlib.Path) -> dict[str, list[tuple[pathlib.Path, ast.AST]]]:
    """Return all functions of the project by their qualified names, and the tops of modules by ""."""
    found: dict[str, list[tuple[pathlib.Path, ast.AST]]] = {}
    for path in (path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))):
        for name, node in _scopes(ast.parse(path.read_text()), ""):
            found.setdefault(name, []).append((path, node))
    return found


def _scopes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Module):
        yield "", node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from _scopes(child, f"{name}.")


def _in_scope(path: pathlib.Path, scope: ast.AST, wanted: list[str]) -> Iterator[Place]:
    """Yield the places below one function; functions and classes inside it are scopes of their own."""
    starts = _line_starts(path.read_text())
    for nodes in _runs(scope, len(wanted)):
        if [ast.dump(node) for node in nodes] == wanted:
            first, last = nodes[0], nodes[-1]
            yield Place(path, starts(first.lineno, first.col_offset), starts(last.end_lineno, last.end_col_offset))


def _runs(scope: ast.AST, length: int) -> Iterator[list[ast.AST]]:
    """Yield each node below a scope (or each run of that many statements of one block), as a list."""
    for _, value in ast.iter_fields(scope):
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            yield from (value[at : at + length] for at in range(len(value) - length + 1))
    for child in ast.iter_child_nodes(scope):
        if length == 1 and isinstance(child, ast.expr):
            yield [child]
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _runs(child, length)


def _line_starts(text: str) -> Callable[[int, int], int]:
    """Return a function from line and column (in UTF-8 bytes, as `ast` counts) to an index of the text."""
    lines = text.splitlines(keepends=True)
    before = [0]
    for line in lines:
        before.append(before[-1] + len(line))
    return lambda line, column: before[line - 1] + len(lines[line - 1].encode()[:column].decode())
