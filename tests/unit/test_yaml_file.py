"""What people get wrong in YAML, and whether the sentence leads them to it."""

import pathlib

import pytest

from beamtide.config import yaml_file
from beamtide.config.models import SiteConfig
from beamtide.errors import BadInput

GOOD = """
site: p06
roots: {raw: raw, processed: processed}
state: state
pipelines: [xrf.yaml]
scaling: {caps: {jobs: 4, node_hours_per_day: 100}}
"""


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    file = folder / "site.yaml"
    file.write_text(text)
    file.chmod(0o644)
    return file


def refusal(folder: pathlib.Path, text: str) -> str:
    with pytest.raises(BadInput) as caught:
        yaml_file.validate(yaml_file.read(written(folder, text)), SiteConfig)
    return str(caught.value)


def test_a_good_file_becomes_a_model(tmp_path: pathlib.Path) -> None:
    site = yaml_file.validate(yaml_file.read(written(tmp_path, GOOD)), SiteConfig)
    assert site.scaling.caps.jobs == 4


def test_a_missing_key_is_named_with_line_and_meaning(tmp_path: pathlib.Path) -> None:
    said = refusal(tmp_path, GOOD.replace("jobs: 4, ", ""))
    assert said.startswith("site.yaml:6  scaling.caps.jobs is required: Jobs of all pipelines together.")


def test_a_misspelt_key_is_named_with_a_proposal(tmp_path: pathlib.Path) -> None:
    said = refusal(tmp_path, GOOD.replace("scaling: {", "scaling: {drain_wihtin: 3, "))
    assert "site.yaml:6  scaling.drain_wihtin" in said
    assert "did you mean drain_within?" in said


def test_all_problems_are_told_at_once(tmp_path: pathlib.Path) -> None:
    assert len(refusal(tmp_path, GOOD.replace("site: p06", "").replace("state: state", "stade: state")).splitlines()) == 3


def test_a_wrong_value_is_quoted(tmp_path: pathlib.Path) -> None:
    said = refusal(tmp_path, GOOD.replace("jobs: 4", "jobs: many"))
    assert "scaling.caps.jobs" in said
    assert "'many'" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1\nb: *x\n", "site.yaml:1  anchors"),
        ("a: 1\nb: 2\na: 3\n", "site.yaml:1  a stands twice, again in line 3"),
        ("- 1\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("a: [1, 2\n", "not YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "site.yaml:1  not YAML"),
        ("a: " + "[" * 40 + "]" * 40, "too deep"),
        ("a: [" + "1," * 100_001 + "]", "too deep or too long"),
        ("a: " + "x" * (1 << 20), "at most"),
    ],
    ids=["anchor", "twice", "list", "empty", "broken", "object", "deep", "many", "big"],
)
def test_what_is_refused(tmp_path: pathlib.Path, text: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        yaml_file.read(written(tmp_path, text))
    assert expected in str(caught.value)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path, GOOD)
    file.chmod(0o666)
    with pytest.raises(BadInput, match="chmod o-w"):
        yaml_file.read(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_bytes(b"a: \xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        yaml_file.read(file)
