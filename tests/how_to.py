"""Worked examples of a Markdown document, as files: what people read is what the tests run.

A code block whose first line is a comment with a file name is that file, in the section ("## …") that it stands in.
"""

import pathlib
import re
import sys
import types

ROOT = pathlib.Path(__file__).parents[1]
EXTEND = ROOT / "docs" / "how-to-extend.md"
FENCE = re.compile(r"^```\w+\n(?:#|//) ([\w./-]+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections(document: pathlib.Path = EXTEND) -> dict[str, dict[str, str]]:
    """Return the files of each section: heading -> file name -> text, which begins with the line that names it."""
    parts = re.split(r"^## (.+)$", document.read_text(), flags=re.MULTILINE)
    headings, bodies = parts[1::2], parts[2::2]
    found = {}
    for heading, body in zip(headings, bodies, strict=True):
        named = FENCE.findall(body)
        assert len({name for name, _ in named}) == len(named), f"two code blocks of {heading!r} have one name"
        found[heading] = {name: f"# {name}\n{text}" for name, text in named}
    return found


def module(heading: str, name: str, document: pathlib.Path = EXTEND) -> types.ModuleType:
    """Import a module of an example from the page, without installing it."""
    made = types.ModuleType(name)
    sys.modules[name] = made  # dataclasses look for the module of their class
    exec(compile(sections(document)[heading][f"{name}.py"], f"{name}.py", "exec"), made.__dict__)
    return made


def written(heading: str, folder: pathlib.Path, document: pathlib.Path = EXTEND) -> pathlib.Path:
    """Write the files of one section below a folder, and return it."""
    for name, text in sections(document)[heading].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
