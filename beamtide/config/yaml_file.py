"""Reads YAML configuration files: safely, with limits, and with file, line and key path of every mistake.

Refused before anything is built from it: anchors and aliases, duplicate keys, more than 1 MiB, more than 32 levels, more than
100,000 nodes, a file that everybody may write to.
"""

import difflib
import pathlib
import stat
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from beamtide.errors import BadInput

MAX_BYTES, MAX_DEPTH, MAX_NODES = 1 << 20, 32, 100_000
Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(slots=True)
class Document:
    """The content of a file, and the line of each key path."""

    file: pathlib.Path
    content: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """Return "file:line  key.path" of a key, or of the nearest one above it that is there."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        dotted = ".".join(str(key) for key in path)
        return f"{self.file.name}:{self.lines.get(known, 1)}  {dotted}".rstrip()


def read(file: pathlib.Path) -> Document:
    """Read one YAML file with a mapping at its top. BadInput says what is wrong and where."""
    text = _text(file)
    document = Document(file, {})
    try:
        _refuse_anchors(text, file)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise BadInput(f"{file.name}: expected keys and values at the top (for example `site: p06`)")
        _Walk(document).visit(root, (), 0)
        document.content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{file.name}:{line}  not YAML: {error.problem}; look at the indentation and the quotes there") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{file.name}: not YAML: {error}") from error
    return document


def validate(document: Document, model: type[Model]) -> Model:
    """Make a model of a document. BadInput holds one line per problem."""
    try:
        return model.model_validate(document.content)
    except ValidationError as error:
        raise BadInput("\n".join(problems(document, model, error))) from error


def problems(document: Document, model: type[BaseModel], error: ValidationError, at: Path = ()) -> list[str]:
    """Return one sentence for each thing that pydantic did not like; `at`: where in the document the model stands."""
    return [_sentence(document, model, dict(one), at) for one in error.errors(include_url=False)]


def _sentence(document: Document, model: type[BaseModel], problem: dict[str, Any], at: Path) -> str:
    path: Path = tuple(part for part in problem["loc"] if not _is_alternative(part))
    where, kind = document.where((*at, *path)), problem["type"]
    if kind == "missing":
        meaning = _description(model, path)
        return f"{where} is required{': ' + meaning if meaning else ''}"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), _siblings(model, path), n=1)
        return f"{where} is not a known key{f'; did you mean {near[0]}?' if near else '; remove it'}"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')} (found {str(problem.get('input'))[:60]!r})"


def _is_alternative(part: str | int) -> bool:
    """Whether pydantic put the name of a union's branch into the path."""
    return isinstance(part, str) and ("[" in part or part in {"int", "str"})


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    for key in path:
        inner = model.model_fields.get(str(key))
        found = inner.annotation if inner else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            break
        model = found
    return model


def _siblings(model: type[BaseModel], path: Path) -> list[str]:
    return list(_model_at(model, path[:-1]).model_fields)


def _description(model: type[BaseModel], path: Path) -> str:
    inner = _model_at(model, path[:-1]).model_fields.get(str(path[-1]))
    return ((inner.description or "").splitlines() or [""])[0] if inner else ""


def _text(file: pathlib.Path) -> str:
    try:
        info = file.stat()
        if stat.S_ISREG(info.st_mode) and info.st_mode & stat.S_IWOTH:
            raise BadInput(f"{file}: everybody may write to it; run `chmod o-w {file}` first")
        if info.st_size > MAX_BYTES:
            raise BadInput(f"{file}: {info.st_size} bytes, at most {MAX_BYTES} are read; is this the right file?")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not a text file in UTF-8") from error


def _refuse_anchors(text: str, file: pathlib.Path) -> None:
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            line = token.start_mark.line + 1
            raise BadInput(f"{file.name}:{line}  anchors and aliases (& and *) are not allowed; write the value out")


@dataclass(slots=True)
class _Walk:
    """Notes the line of every key path, and refuses what is too much."""

    document: Document
    nodes: int = 0

    def visit(self, node: yaml.Node, path: Path, depth: int) -> None:
        self.nodes += 1
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise BadInput(f"{self.document.where(path)}: too deep or too long (at most {MAX_DEPTH} levels, {MAX_NODES} values)")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                if inner in self.document.lines:
                    raise BadInput(f"{self.document.where(inner)} stands twice, again in line {key.start_mark.line + 1}")
                self.document.lines[inner] = key.start_mark.line + 1
                self.visit(value, inner, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                self.visit(value, (*path, position), depth + 1)
