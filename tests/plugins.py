"""Distributions of strangers for tests: files in a folder that only has to be on the path."""

import pathlib
from collections.abc import Mapping


def installed(folder: pathlib.Path, name: str, entry_points: str, modules: Mapping[str, str]) -> pathlib.Path:
    """Make a distribution: its name, the text of its entry points, and its modules (file name -> text)."""
    facts = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(entry_points)
    for file, text in modules.items():
        (folder / file).write_text(text)
    return folder
