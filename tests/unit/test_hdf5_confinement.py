"""Files that try to make a worker read what lies outside its roots, and files of detectors that only look so."""

import os
import pathlib
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from beamtide.config.models import Roots
from beamtide.errors import BadInput
from beamtide.formats import confinement
from cluster_side.worker.task import inputs
from tests.builders.tasks import make_input, make_task


@pytest.fixture
def roots(tmp_path: pathlib.Path) -> Roots:
    (tmp_path / "raw" / "scan").mkdir(parents=True)
    (tmp_path / "processed").mkdir()
    (tmp_path / "secret.bin").write_bytes(b"top secret")
    for place in (tmp_path / "secret.h5", tmp_path / "raw" / "scan" / "part.h5"):
        with h5py.File(place, "w") as file:
            file["counts"] = np.arange(5)
    return Roots(raw=tmp_path / "raw", processed=tmp_path / "processed")


def virtual(file: h5py.File, source: str) -> None:
    layout = h5py.VirtualLayout(shape=(5,), dtype="i8")
    layout[:] = h5py.VirtualSource(source, "counts", shape=(5,))
    file.create_virtual_dataset("counts", layout)


def read(roots: Roots) -> list[int]:
    task = make_task(stop=2, inputs=(make_input("scan/master.h5", last=2, options={"counts": "counts"}),))
    return [int(value) for value in inputs.read_files(task, roots).arrays["counts"]]


def master(roots: Roots) -> h5py.File:
    return h5py.File(roots.raw / "scan" / "master.h5", "w")


def test_external_storage_is_refused(roots: Roots) -> None:
    secret = roots.raw.parent / "secret.bin"
    with master(roots) as file:
        file.create_dataset("counts", (10,), "u1", external=[(str(secret), 0, 10)])
    with pytest.raises(BadInput, match=r"counts lies in external storage"):
        read(roots)


@pytest.mark.parametrize("name", ["../../secret.h5", "{absolute}", "link.h5"])
@pytest.mark.parametrize("way", ["link", "virtual", "soft", "nested"])
def test_nothing_leads_outside(roots: Roots, way: str, name: str) -> None:
    (roots.raw / "scan" / "link.h5").symlink_to(roots.raw.parent / "secret.h5")
    target = name.format(absolute=roots.raw.parent / "secret.h5")
    with master(roots) as file:
        if way == "virtual":
            virtual(file, target)
        elif way == "nested":
            file["counts"] = h5py.ExternalLink("second.h5", "counts")
            with h5py.File(roots.raw / "scan" / "second.h5", "w") as second:
                second["counts"] = h5py.ExternalLink(target, "counts")
        else:
            file["elsewhere" if way == "soft" else "counts"] = h5py.ExternalLink(target, "counts")
            if way == "soft":
                file["counts"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(BadInput, match="a task may only read below it"):
        read(roots)


@pytest.mark.parametrize("way", ["link", "virtual"])
def test_a_master_file_of_a_detector_is_read(roots: Roots, way: str) -> None:
    with master(roots) as file:
        if way == "link":
            file["counts"] = h5py.ExternalLink("part.h5", "counts")
        else:
            virtual(file, "part.h5")
    assert read(roots) == [0, 1]


def test_a_damaged_file_is_one_sentence(roots: Roots) -> None:
    """Bits are flipped at random; each file is opened in a process of its own, because HDF5 remembers what it choked on."""
    with master(roots) as file:
        file.create_dataset("a/b/zipped", data=np.zeros((10, 10)), chunks=(5, 5), compression="gzip")
        file["a/part"] = h5py.ExternalLink("part.h5", "counts")
        virtual(file, "part.h5")
    path, rng, said = roots.raw / "scan" / "master.h5", np.random.default_rng(0), set()
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        said.add(in_a_process(lambda: confinement.before_opening(path, roots.raw)))
    assert said == {"", "Unfinished"}


def in_a_process(do: Callable[[], None]) -> str:
    """Return the kind of exception that it ended with; "" for none."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        kind = ""
        try:
            do()
        except BaseException as error:
            kind = type(error).__name__
        os.write(writing, kind.encode() + b"\n")
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, "rb") as told:
        return (told.readline() or b"a signal\n").decode().rstrip("\n")


def test_a_file_of_very_many_objects_is_refused(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "MAX_OBJECTS", 20)
    with master(roots) as file:
        for number in range(25):
            file[f"g/{number}"] = number
    with pytest.raises(BadInput, match="more than 20 objects"):
        read(roots)


def test_circles_end(roots: Roots) -> None:
    with master(roots) as file:
        file["counts"] = np.arange(5)
        file["again"] = file["/"]
        file["self"] = h5py.ExternalLink("master.h5", "/")
    assert read(roots) == [0, 1]


def test_no_folder_is_left_from_which_code_is_loaded() -> None:
    h5py.h5pl.append(b"/tmp")
    confinement.forget_environment()
    assert h5py.h5pl.size() == 0


@pytest.mark.parametrize("way", ["link", "virtual"])
def test_the_environment_leads_nowhere_else(roots: Roots, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 looks for a relative name in the folders of these variables first."""
    elsewhere = roots.raw.parent / "elsewhere"
    elsewhere.mkdir()
    with h5py.File(elsewhere / "part.h5", "w") as file:
        file["counts"] = np.full(5, 666)
    for name in ("HDF5_EXT_PREFIX", "HDF5_VDS_PREFIX"):
        monkeypatch.setenv(name, str(elsewhere))
    with master(roots) as file:
        if way == "virtual":
            virtual(file, "part.h5")
        else:
            file["counts"] = h5py.ExternalLink("part.h5", "counts")
    assert read(roots) == [0, 1]
