"""A damaged frame costs its index: kernels get the other frames, and the result says which are missing."""

import os
import pathlib

import h5py
import hdf5plugin
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.messages.results import Hole
from beamtide.messages.tasks import FileStamp, InputFile, Task
from cluster_side.modalities.context import ALONE
from cluster_side.modalities.dpc.spec import MODALITY as DPC
from cluster_side.worker.task import inputs, one_task
from cluster_side.worker.task.ready_kernel import ReadyKernel
from tests.builders.tasks import make_task

PATH = "/entry/data/data"
VALUES = {"frames": "frames"}
READY = ReadyKernel("", DPC.load(VALUES, {}), DPC.declared(VALUES), {}, lambda units: None)


def roots_of(folder: pathlib.Path) -> Roots:
    return Roots(raw=folder, processed=folder / "processed")


def write(folder: pathlib.Path, images: np.ndarray, per_file: int, damaged: set[int]) -> tuple[InputFile, ...]:
    """Write frames into files of so many; the chunks of some are damaged."""
    found = []
    for first in range(0, len(images), per_file):
        block, path = images[first : first + per_file], folder / f"{first}.h5"
        with h5py.File(path, "w") as file:
            made = file.create_dataset(PATH, data=block, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4"))
            for row in (index - first for index in damaged if first <= index < first + per_file):
                made.id.write_direct_chunk((row, 0, 0), b"\xff" * 40)
        found.append(InputFile(root="raw", path=path.name, format="eiger", first=0, last=len(block)))
    return tuple(found)


def expected(images: np.ndarray) -> dict[str, np.ndarray]:
    return dict(DPC.load(VALUES, {})({"frames": images}))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("form", ["eiger", "hdf5"])
def test_what_is_computed_of_the_others_is_what_it_would_be(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    """Frames in one or more files; hdf5 reads them at once, eiger when the kernel asks for them."""
    count, start = data.draw(st.integers(1, 7)), data.draw(st.integers(0, 5))
    damaged = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    images = np.random.default_rng(0).poisson(9, (count, 16, 12)).astype("u4")
    folder = tmp_path_factory.mktemp("given")
    files = write(folder, images, data.draw(st.integers(1, 4)), damaged)
    options = {"frames": PATH} if form == "hdf5" else {}
    files = tuple(msgspec.structs.replace(one, format=form, options=options) for one in files)
    task = make_task(start, start + count, inputs=files)
    outputs, found = one_task.readable(READY, inputs.read_with(task, roots_of(folder), {}), ALONE)
    for name, whole in expected(images).items():
        array = outputs[name]
        assert len(array) == count
        good = sorted(set(range(count)) - damaged)
        np.testing.assert_array_equal(array[good], whole[good], err_msg=name)
        if array.dtype.kind == "f":
            assert np.isnan(array[sorted(damaged)]).all()
    holes = found.holes(start)
    assert sorted(index for hole in holes for index in range(hole.start, hole.stop)) == sorted(start + one for one in damaged)
    assert all(".h5: frame" in hole.reason and "damaged" in hole.reason for hole in holes)


def test_a_task_of_which_nothing_is_left_fails_with_the_reason(tmp_path: pathlib.Path) -> None:
    files = write(tmp_path, np.ones((2, 8, 8), "u4"), 2, {0, 1})
    with pytest.raises(BadInput, match=r"0\.h5: frame 0 of .* the file is damaged"):
        one_task.readable(READY, inputs.read_with(make_task(stop=2, inputs=files), roots_of(tmp_path), {}), ALONE)


def test_datasets_of_other_pipelines_keep_to_their_frames(tmp_path: pathlib.Path) -> None:
    files = write(tmp_path, np.ones((4, 8, 8), "u4"), 4, {1})
    files = tuple(msgspec.structs.replace(one, format="hdf5", options={"frames": PATH}) for one in files)
    found = inputs.read_with(make_task(stop=4, inputs=files), roots_of(tmp_path), {"other/x": np.arange(4.0)})
    assert found.arrays["other/x"].tolist() == [0, 2, 3]
    assert found.rows.tolist() == [0, 2, 3]
    (hole,) = found.holes(10)
    assert (hole.start, hole.stop) == (11, 12)
    assert isinstance(hole, Hole)


# what a file was when its task was made


def stamped(folder: pathlib.Path, **change: int) -> Task:
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = np.arange(5)
    info = path.stat()
    stamp = FileStamp(5, info.st_size, info.st_mtime_ns, info.st_ino)
    stamp = msgspec.structs.replace(stamp, **change)
    one = InputFile(root="raw", path="x.h5", format="hdf5", first=0, last=5, options={"counts": "counts"}, was=stamp)
    return make_task(stop=5, inputs=(one,))


def test_a_file_that_is_as_it_was_or_grew_is_read(tmp_path: pathlib.Path) -> None:
    task = stamped(tmp_path)
    assert inputs.read_files(task, roots_of(tmp_path)).arrays["counts"].tolist() == [0, 1, 2, 3, 4]
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["more"] = np.arange(5000)
    assert inputs.read_files(task, roots_of(tmp_path)).arrays["counts"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("way", ["gone", "replaced", "written again", "cut"])
def test_a_file_that_is_another_one_now_is_told_and_read_only_if_somebody_says_so(tmp_path: pathlib.Path, way: str) -> None:
    task, path = stamped(tmp_path), tmp_path / "x.h5"
    if way == "gone":
        path.unlink()
    elif way == "replaced":
        with h5py.File(tmp_path / "new.h5", "w") as file:
            file["counts"] = np.arange(100, 106)
        (tmp_path / "new.h5").replace(path)
    else:
        with h5py.File(path, "w") as file:
            file["counts"] = np.arange(100, 105 if way == "written again" else 103)
        was = task.inputs[0].was
        assert was is not None
        os.utime(path, ns=(was.changed, was.changed + 3600 * 10**9))
    sentence = "and is gone" if way == "gone" else "is not the file any more that this task was made of"
    with pytest.raises(BadInput, match=sentence):
        inputs.read_files(task, roots_of(tmp_path))
    again = msgspec.structs.replace(task, generation=1)
    if way in ("replaced", "written again"):
        assert inputs.read_files(again, roots_of(tmp_path)).arrays["counts"].tolist() == [100, 101, 102, 103, 104]
    else:
        with pytest.raises(BadInput):
            inputs.read_files(again, roots_of(tmp_path))
