"""The committed proof of the verdicts (`make proof`) meets the bars, and was made with the thresholds that the code has now."""

import json
from collections import Counter

import pytest

from benchmarks import ptycho_verdicts as study

PROOF = json.loads(study.RESULT.read_text())
ROWS = PROOF["rows"]


def test_it_was_made_with_the_constants_of_this_code() -> None:
    assert PROOF["constants"] == study.constants(), "a number behind the verdicts has changed: run make proof"
    assert not PROOF["commit"].endswith("dirty")


def test_its_counts_are_those_of_its_rows() -> None:
    assert {name: PROOF[name] for name in study.summary(ROWS)} == study.summary(ROWS)


def test_verdicts_that_no_threshold_was_set_on_are_right() -> None:
    assert PROOF["bars"] == {"ring_above": 0.5, "share_judged_at_least": 0.95, "wrong_called_converged": 0}
    judged = [row for row in ROWS if row["part"] in study.JUDGED]
    assert len(judged) >= 60
    assert sum(_is_right(row) for row in judged) >= 0.95 * len(judged)


def test_no_wrong_object_is_called_converged() -> None:
    wrong = [row for row in ROWS if row["case"] in ("distance", "flipped") or row["ring"] <= 0.5]
    assert wrong
    assert not [row for row in wrong if row["verdict"] == "converged"]


@pytest.mark.parametrize("field", ["far", "near"])
def test_every_mistake_was_made_in_both_fields(field: str) -> None:
    cases = Counter(row["case"] for row in ROWS if row["field"] == field)
    assert set(cases) == {"right", "unknown", "distance", "flipped", "short"}
    assert min(cases.values()) >= 20


def test_a_third_of_the_objects_come_from_elsewhere() -> None:
    seen = {row["object"].partition("/")[0] for row in ROWS}
    elsewhere = seen & {"measured star", *(made.__name__ for made in study.FROM_ELSEWHERE)}
    assert len(seen) >= 9
    assert 3 * len(elsewhere) >= len(seen)
    assert not {row["part"] for row in ROWS if row["object"].partition("/")[0] in elsewhere - {"measured star"}} & set(
        study.CHOSEN
    )


def _is_right(row: dict[str, object]) -> bool:
    """Say it anew, by what the docs promise."""
    if row["case"] in ("right", "unknown"):
        return (row["verdict"] == "converged") == (row["ring"] > 0.5)  # type: ignore[operator]
    return row["verdict"] == "did not converge"
