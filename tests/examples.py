"""The worked examples of the documentation, as distributions: every block of code that begins with the name of a file."""

import pathlib
import re
import sys
import types

from tests.plugins import installed

PAGE = "how-to-extend-beamline.part.md"
ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n# ([\w./-]+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: str, section: str) -> dict[str, str]:
    """Return the files of a section ("## …") of a page of docs: name -> text."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    return {name: body for _, name, body in BLOCK.findall(text)}


def example(folder: pathlib.Path, page: str, section: str) -> pathlib.Path:
    """Make the distribution of a section in a folder that only has to be on the path."""
    files = blocks(page, section)
    points = "\n".join(re.findall(r'^\[project\.entry-points\."(.*)"\]\n(.*)$', files["pyproject.toml"], re.MULTILINE)[0])
    group, point = points.split("\n")
    name, _, value = point.partition(" = ")
    modules = {file: body for file, body in files.items() if file.endswith(".py")}
    return installed(folder, section.replace(" ", "-").lower(), f"[{group}]\n{name} = {value.strip(chr(34))}\n", modules)


def module(page: str, section: str, file: str) -> types.ModuleType:
    """Import a module of an example."""
    made = types.ModuleType(f"example_{file.removesuffix('.py')}")
    sys.modules[made.__name__] = made  # dataclasses look for the module of their class
    exec(compile(blocks(page, section)[file], file, "exec"), made.__dict__)
    return made
