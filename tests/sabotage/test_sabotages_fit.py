"""The sabotages still fit the code that they sabotage; whether tests notice them is what `make sabotage` finds out."""

import ast
import pathlib

import pytest

from tests.sabotage import anchors
from tests.sabotage.sabotages import SABOTAGES, Sabotage

ROOT = pathlib.Path(__file__).parents[2]
CODE = """
class Lamp:
    def light(self, now: int) -> str:
        if now > self.until:  # Grüße
            return "dark"
        return "ü" + self.name(now > self.until)
"""


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda one: one.name)
def test_its_code_stands_once_in_its_function(sabotage: Sabotage) -> None:
    found = anchors.places(ROOT, sabotage.function, sabotage.old)
    where = f"{sabotage.function} ({len(found)} places)"
    assert len(found) == 1, f"{where} was changed; write the sabotage {sabotage.name!r} in tests/sabotage/sabotages.py anew"
    assert all((ROOT / test.partition("::")[0]).exists() for test in sabotage.tests)
    if found[0].path.suffix == ".py":
        assert ast.dump(ast.parse(anchors.replaced(found[0], sabotage.new))) != ast.dump(ast.parse(found[0].path.read_text()))


def written(folder: pathlib.Path, code: str) -> pathlib.Path:
    """Write a project of one module."""
    (folder / "beamtide").mkdir(parents=True)
    (folder / "beamtide" / "lamp.py").write_text(code)
    return folder


def test_an_anchor_is_found_by_structure_wherever_it_stands(tmp_path: pathlib.Path) -> None:
    moved = CODE.replace('        return "ü"', '        return (\n            "ü"').replace("until)\n", "until)\n        )\n", 1)
    for number, code in enumerate((CODE, "import os\n\n\n" + CODE, moved)):
        (place,) = anchors.places(written(tmp_path / str(number), code), "Lamp.light", "self.name(now > self.until)")
        assert '"ü" + self.name(0)' in anchors.replaced(place, "self.name(0)").replace("\n            +", " +")


def test_an_anchor_that_stands_twice_or_nowhere_is_told(tmp_path: pathlib.Path) -> None:
    root = written(tmp_path, CODE)
    assert len(anchors.places(root, "Lamp.light", "now > self.until")) == 2
    assert not anchors.places(root, "Lamp.dim", "now > self.until")
    assert not anchors.places(root, "light", "now > self.until")


def test_statements_are_removed_and_replaced_in_their_block(tmp_path: pathlib.Path) -> None:
    root = written(tmp_path, CODE)
    (place,) = anchors.places(root, "Lamp.light", "return 'dark'")
    assert "            pass\n" in anchors.replaced(place, "")
    assert "            now = 1\n            return now\n" in anchors.replaced(place, "now = 1\nreturn now")
