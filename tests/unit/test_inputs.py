"""A task reads below its roots and nowhere else, whatever it says; its arrays have one row per index."""

import pathlib

import h5py
import numpy as np
import pytest

from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.messages.tasks import InputFile
from cluster_side.worker.task import inputs
from tests.builders.tasks import make_input, make_task


@pytest.fixture
def roots(tmp_path: pathlib.Path) -> Roots:
    (tmp_path / "raw" / "scan").mkdir(parents=True)
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["counts"] = np.arange(9)
    for number in range(2):
        with h5py.File(tmp_path / "raw" / "scan" / f"{number}.h5", "w") as file:
            file["counts"] = np.arange(10 * number, 10 * number + 5)
    (tmp_path / "raw" / "link.h5").symlink_to(tmp_path / "outside.h5")
    return Roots(raw=tmp_path / "raw", processed=tmp_path / "processed")


def given(path: str, first: int = 0, last: int = 2, root: str = "raw") -> InputFile:
    return make_input(path, first, last, root=root, options={"counts": "counts"})


@pytest.mark.parametrize(
    "path", ["../outside.h5", "scan/../../outside.h5", "/etc/passwd", "link.h5", "scan/0.h5/../../../outside.h5"]
)
def test_no_path_leaves_its_root(roots: Roots, path: str) -> None:
    with pytest.raises(BadInput, match="leaves"):
        inputs.read_files(make_task(stop=2, inputs=(given(path),)), roots)


def test_only_known_roots(roots: Roots) -> None:
    with pytest.raises(BadInput, match="there is no root 'home'"):
        inputs.read_files(make_task(stop=2, inputs=(given("scan/0.h5", root="home"),)), roots)


def test_frames_of_two_files_follow_each_other(roots: Roots) -> None:
    task = make_task(stop=4, inputs=(given("scan/0.h5", 3, 5), given("scan/1.h5", 0, 2)))
    np.testing.assert_array_equal(inputs.read_files(task, roots).arrays["counts"], [3, 4, 10, 11])


def test_more_frames_than_there_are_is_a_sentence(roots: Roots) -> None:
    with pytest.raises(BadInput, match=r"0\.h5"):
        inputs.read_files(make_task(stop=5, inputs=(given("scan/0.h5", 3, 8),)), roots)


def test_the_task_of_a_whole_scan_knows_where_its_indexes_lie(roots: Roots) -> None:
    whole = make_task(stop=5, shape=(3, 2), snake=True)
    found = inputs.read_with(whole, roots, {"p/x": np.arange(5.0)}).arrays
    np.testing.assert_array_equal(found["scan/line"], [0, 0, 1, 1, 2])
    np.testing.assert_array_equal(found["scan/column"], [0, 1, 1, 0, 0])
    assert "scan/line" not in inputs.read_with(make_task(stop=5), roots, {"p/x": np.arange(5.0)}).arrays


@pytest.mark.parametrize("told", [True, False])
def test_measured_positions_say_how_the_lines_of_a_whole_scan_ran(roots: Roots, told: bool) -> None:
    x = np.array([0.0, 1, 2, 2, 1, 0, 0, 1, 2])
    whole = make_task(stop=9, shape=(3, 3), snake=told)
    found = inputs.read_with(whole, roots, {"p/x": x, "p/y": np.repeat([0.0, 1, 2], 3)}).arrays
    np.testing.assert_array_equal(found["scan/column"], x)
