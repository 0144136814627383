"""The compiled loops: one library for each kind of processor, found again by its source, and none where there is no compiler."""

import ctypes
import pathlib
import shutil

import pytest

from cluster_side.modalities import native


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: the loops in NumPy are tested beside what they compute")
def test_every_kind_is_compiled_once_and_has_all_loops(tmp_path: pathlib.Path) -> None:
    made = {kind: native.built(kind, tmp_path) for kind in native.kinds()}
    assert len(set(made.values())) == len(native.kinds())
    assert native._kind() in made
    for file in made.values():
        assert file is not None
        library = ctypes.CDLL(str(file))
        assert all(hasattr(library, name) for name in ("snip", "fit", "nnls", "scatter_u4", "collect"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {kind: native.built(kind, tmp_path) for kind in native.kinds()} == made
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_without_a_compiler_there_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "gone"))
    assert native.built(native._kind(), tmp_path) is None
    monkeypatch.setenv("CC", "false")
    assert native.built(native._kind(), tmp_path) is None
    assert not list(tmp_path.glob("*.so"))
