"""The sabotages still fit the code that they sabotage; whether tests notice them is what `make sabotage` finds out."""

import pathlib

import pytest

from tests.sabotage.sabotages import SABOTAGES, Sabotage

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda one: one.name)
def test_its_text_stands_once_in_its_file(sabotage: Sabotage) -> None:
    found = (ROOT / sabotage.file).read_text().count(sabotage.old)
    assert found == 1, f"{sabotage.file} was changed; write the sabotage {sabotage.name!r} in tests/sabotage/sabotages.py anew"
    assert all((ROOT / test.partition("::")[0]).exists() for test in sabotage.tests)
