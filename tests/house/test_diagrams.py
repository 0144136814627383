"""The pictures in docs/states.md are those of the tables in the code."""

import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


def test_the_diagrams_are_drawn_from_the_tables_of_today() -> None:
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "docs" / "diagrams.py")
    assert spec
    assert spec.loader
    diagrams = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(diagrams)
    page = (ROOT / "docs" / "states.md").read_text()
    arrows = [line for line in page.splitlines() if " --> " in line]
    assert len(arrows) > 30
    assert not [line for line in arrows if line.count(":") > 1 or ";" in line], "Mermaid does not understand such a label"
    assert page == diagrams.drawn(page), "the diagrams are old: make diagrams"
