"""What a modality prepared is built once, kept whole, and never believed when it is damaged."""

import multiprocessing
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from beamtide import clock
from cluster_side.worker.task import prepared_arrays
from cluster_side.worker.task.prepared_arrays import keeper

ARRAYS = {"matrix": np.arange(12.0).reshape(3, 4), "facts": np.frombuffer(b"{}", dtype=np.uint8), "none": np.empty(0)}


class Builder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return ARRAYS


def same(found: object) -> bool:
    assert isinstance(found, dict)
    return found.keys() == ARRAYS.keys() and all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_it_is_built_once_and_mapped_from_then_on(tmp_path: pathlib.Path) -> None:
    build = Builder()
    for _ in range(3):
        found = keeper(tmp_path, "k")(build)
        assert same(found)
        assert isinstance(found["matrix"], np.memmap)
    assert build.times == 1
    keeper(tmp_path, "other settings")(build)
    assert build.times == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["k", "other settings"], "both are kept"


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["a bit", "short", "gone", "index", "swapped"])
def test_a_damaged_entry_is_built_again(tmp_path: pathlib.Path, damage: str) -> None:
    build = Builder()
    keeper(tmp_path, "k")(build)
    entry = tmp_path / "k"
    match damage:
        case "a bit":
            flip(entry / "0.npy")
        case "short":
            (entry / "0.npy").write_bytes((entry / "0.npy").read_bytes()[:-8])
        case "gone":
            (entry / "1.npy").unlink()
        case "index":
            (entry / "index.json").write_bytes(b"\xff{")
        case "swapped":
            (entry / "0.npy").rename(entry / "x")
            (entry / "1.npy").rename(entry / "0.npy")
            (entry / "x").rename(entry / "1.npy")
    assert same(keeper(tmp_path, "k")(build))
    assert build.times == 2
    assert same(keeper(tmp_path, "k")(build))
    assert build.times == 2
    assert not list(tmp_path.glob(".*")), "nothing is left behind"


def crowd_member(folder: pathlib.Path, gate: object, built: object) -> None:
    def build() -> dict[str, np.ndarray]:
        with built.get_lock():  # type: ignore[attr-defined]
            built.value += 1  # type: ignore[attr-defined]
        return ARRAYS

    gate.wait()  # type: ignore[attr-defined]
    os._exit(0 if same(keeper(folder, "k")(build)) else 1)


def test_one_of_many_builds_for_all(tmp_path: pathlib.Path) -> None:
    fork = multiprocessing.get_context("fork")
    gate, built = fork.Barrier(8), fork.Value("i", 0)
    crowd = [fork.Process(target=crowd_member, args=(tmp_path, gate, built)) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(30)
    assert [one.exitcode for one in crowd] == [0] * 8
    assert built.value == 1


def test_a_builder_that_hangs_does_not_hold_up_the_others(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared_arrays, "PATIENCE", 0.1)
    build = Builder()
    with prepared_arrays._alone(tmp_path, "k"):
        began = clock.monotonic()
        assert same(keeper(tmp_path, "k")(build))
        assert clock.monotonic() - began < 10
    assert build.times == 1


def test_a_builder_that_was_killed_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".k.node.1").mkdir()
    (tmp_path / ".k.node.1" / "0.npy").write_bytes(b"half")
    assert same(keeper(tmp_path, "k")(Builder()))
    assert not list(tmp_path.glob(".k*"))


def test_what_was_used_longest_ago_goes_first(tmp_path: pathlib.Path) -> None:
    bound, big = 3 * 8000 + 3000, {"big": np.zeros(1000)}
    for at, key in enumerate(("a", "b", "c")):
        keeper(tmp_path, key, bound)(lambda: big)
        os.utime(tmp_path / key / "index.json", (at, at))
    held = keeper(tmp_path, "a", bound)(Builder())["big"]  # used now: "b" is the oldest
    keeper(tmp_path, "d", bound)(lambda: big)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"a", "c", "d"}
    assert held.sum() == 0
    keeper(tmp_path, "huge", bound)(lambda: {"huge": np.zeros(10000)})
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"huge"}, "its own entry stays"


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    build = Builder()
    assert same(keeper(tmp_path / "file" / "below", "k")(build))
    assert build.times == 1


WARM = """
import pathlib, sys
from beamtide.config.settings import PreparedSettings, digest_of, digest_of_bytes
from beamtide.messages.metadata import SettingsDocument
from cluster_side.worker.task import ready_kernel
cfg = pathlib.Path(sys.argv[1]).read_bytes()
document = SettingsDocument(modality="xrf", values="{}", calibration={"cfg": digest_of_bytes(cfg)})
ready_kernel.prepare(PreparedSettings(document, digest_of(document), {"cfg": cfg}), pathlib.Path(sys.argv[2]))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.long
def test_a_worker_with_a_warm_cache_imports_neither_pymca_nor_scipy(tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    command = [sys.executable, "-c", WARM, str(test_data / "xrf" / "nanomax_fit_12keV.cfg"), str(tmp_path)]
    cold, warm = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(2))
    assert "PyMca5" in cold
    assert "numpy" in warm
    assert not {"PyMca5", "fisx", "scipy", "matplotlib", "silx", "pyFAI"} & set(warm)
