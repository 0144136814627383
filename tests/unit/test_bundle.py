"""Bundles: what is written is what is read, inputs stay below their roots; and how dead letters are named."""

import json
import pathlib

import msgspec
import numpy as np
import pytest

from beamtide import bundle
from beamtide.cli.dead_letters import matching
from beamtide.config import settings
from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.messages.base import TaskId
from beamtide.messages.dead_letters import DeadLetter
from beamtide.messages.metadata import SettingsDocument
from beamtide.messages.tasks import Need
from beamtide.task_files import read_tasks
from cluster_side.worker.task import rerun_bundle
from tests.builders.tasks import make_input, make_need, make_task

NEED = make_need(4, "encoders", "group/x")
DOCUMENT = SettingsDocument(
    modality="encoders",
    values=settings.canonical({"axes": {"x": {"field": "encoders/group/x"}}}),
    calibration={"cfg": settings.digest_of_bytes(b"peaks")},
)


def letter_of(number: int = 0, scan: str = "s", path: str = "sub/a.txt", needs: tuple[Need, ...] = (NEED,)) -> DeadLetter:
    task = make_task(
        stop=4,
        id=f"{scan}/xrf/{number:04d}",
        scan=scan,
        pipeline="xrf",
        modality="encoders",
        inputs=(make_input(path, last=4),) if path else (),
        settings=settings.digest_of(DOCUMENT),
        needs=needs,
        generation=2,
    )
    return DeadLetter(task=task, seq=1, reason="off", trace="Traceback: off", stderr="warned", host="h", at=1e9)


def written(folder: pathlib.Path, name: str, letter: DeadLetter, **more: bool) -> tuple[pathlib.Path, list[str]]:
    (folder / "raw/sub").mkdir(parents=True, exist_ok=True)
    (folder / "raw/sub/a.txt").write_text("frames")
    (folder / "secret").write_text("not yours")
    made = bundle.Bundle(
        letter,
        DOCUMENT,
        {"cfg": b"peaks"},
        Roots(raw=folder / "raw", processed=folder / "p"),
        {"encoders/group/x": np.arange(4.0)},
    )
    return folder / name, bundle.write(made, folder / name, with_inputs=more.get("with_inputs", False))


@pytest.mark.parametrize("name", ["b.zip", "b"])
def test_what_is_written_is_what_is_read(tmp_path: pathlib.Path, name: str) -> None:
    path, missing = written(tmp_path, name, letter_of(), with_inputs=True)
    assert missing == []
    with bundle.opened(path) as folder:
        assert read_tasks(folder / "task.json") == [letter_of().task]
        prepared = bundle.read_settings(folder)
        assert (prepared.document, prepared.files) == (DOCUMENT, {"cfg": b"peaks"})
        assert prepared.digest == letter_of().task.settings
        np.testing.assert_array_equal(bundle.read_dataset(folder, "encoders/group/x"), np.arange(4.0))
        assert (bundle.read_roots(folder, None).raw / "sub/a.txt").read_text() == "frames"
        assert bundle.read_roots(folder, tmp_path).raw == tmp_path
        assert (folder / "traceback.txt").read_text() == "Traceback: off"
        assert (folder / "stderr.txt").read_text() == "warned"
        assert json.loads((folder / "failure.json").read_text())["reason"] == "off"
        assert f"beamtide rerun {name}" in (folder / "README.txt").read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([name, "raw", "secret"]), "nothing else is left"
    with pytest.raises(BadInput, match="exists already"):
        written(tmp_path, name, letter_of())


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "gone.txt"])
def test_an_input_that_is_not_below_its_root_is_not_copied(tmp_path: pathlib.Path, path: str) -> None:
    target, missing = written(tmp_path, "b", letter_of(path=path), with_inputs=True)
    assert missing == [f"inputs/raw/{path}"]
    assert not list((target / "inputs").rglob("*"))


def test_without_copies_inputs_are_where_they_were(tmp_path: pathlib.Path) -> None:
    path, _ = written(tmp_path, "b", letter_of())
    assert bundle.read_roots(path, None) == Roots(raw=tmp_path / "raw", processed=tmp_path / "p")


def test_a_task_of_datasets_only_runs_from_its_bundle(tmp_path: pathlib.Path) -> None:
    path, _ = written(tmp_path, "b.zip", letter_of(path=""))
    code, said = rerun_bundle.run(path, None)
    assert (code, "works here: 4 indexes" in said) == (0, True), said
    path, _ = written(tmp_path, "other.zip", letter_of(path="", needs=()))
    code, said = rerun_bundle.run(path, None)
    assert code == 1
    assert "the frames have no column" in said.splitlines()[-1]


def test_what_is_no_bundle_is_a_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b.zip").write_text("no")
    for path in (tmp_path / "b.zip", tmp_path / "gone.zip", tmp_path):
        with pytest.raises(BadInput, match="bundle"):
            rerun_bundle.run(path, None)


def test_letters_are_found_by_name_beginning_or_scan() -> None:
    letters = [letter_of(11), letter_of(12), letter_of(20), letter_of(30, scan="t")]
    letters.append(msgspec.structs.replace(letters[0], task=msgspec.structs.replace(letters[0].task, id=TaskId("s/xrf/0011x"))))

    def starts(text: str) -> list[str]:
        return [one.task.id.rpartition("/")[2] for one in matching(text, letters)]

    assert starts("s/xrf/0011") == ["0011"], "a whole name is that task only"
    assert starts("s/xrf/002") == ["0020"]
    assert starts("s/xrf") == starts("s") == ["0011", "0012", "0020", "0011x"]
    assert starts("t/") == ["0030"]
    for text, words in (("s/xrf/001", "3 tasks begin with"), ("u", "there is no dead letter"), ("", "there is no")):
        with pytest.raises(BadInput, match=words):
            matching(text, letters)
