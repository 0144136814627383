"""Eiger files: what we decompress is what HDF5's own filters read, one frame at a time; damage and strange filters are told."""

import pathlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.formats import rows
from tests import eiger_files

FORMAT = registry.find("formats", "eiger")


@pytest.fixture(scope="module")
def measured(test_data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("eiger") / "eiger.h5"
    eiger_files.write(path, test_data / "streams" / "nanomax_eiger-1m.cbors", 4)
    return path


def test_measured_frames_are_read_as_hdf5_reads_them(measured: pathlib.Path) -> None:
    assert FORMAT.probe(measured, {}).frames == 4
    frames = FORMAT.read(measured, 1, 4, {})["frames"]
    with h5py.File(measured) as file:
        expected = file["entry/data/data"][1:4]
    assert frames.shape == expected.shape == (3, 1062, 1028)
    assert frames.dtype == expected.dtype
    assert frames.way.name == "bitshuffle"
    np.testing.assert_array_equal(np.asarray(frames), expected)
    np.testing.assert_array_equal(frames[2], expected[2])
    assert len(list(frames)) == 3
    assert expected[expected < 2**32 - 1].any()


def test_without_bitshuffle_hdf5_decompresses(measured: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = FORMAT.read(measured, 0, 1, {})["frames"][0]
    monkeypatch.setattr(rows, "has_bitshuffle", lambda: False)
    frames = FORMAT.read(measured, 0, 1, {})["frames"]
    assert frames.way.name == "apart"
    np.testing.assert_array_equal(frames[0], expected)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd", "several frames a chunk"])
def test_other_layouts_go_through_hdf5(tmp_path: pathlib.Path, kind: str) -> None:
    images = np.random.default_rng(0).poisson(3, (4, 30, 20)).astype("u2")
    options = {
        "plain": {},
        "gzip": {"compression": "gzip", "chunks": (1, 30, 20)},
        "zstd": dict(hdf5plugin.Blosc2(), chunks=(1, 30, 20)),
        "several frames a chunk": dict(hdf5plugin.Bitshuffle(), chunks=(2, 30, 20)),
    }[kind]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b", data=images, **options)
    frames = FORMAT.read(tmp_path / "x.h5", 0, 4, {"images": "/a/b"})["images"]
    np.testing.assert_array_equal(np.asarray(frames), images)


def test_a_damaged_chunk_is_one_sentence(measured: pathlib.Path, tmp_path: pathlib.Path) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(measured.read_bytes())
    with h5py.File(damaged, "r+") as file:
        _, chunk = file["entry/data/data"].id.read_direct_chunk((1, 0, 0))
        file["entry/data/data"].id.write_direct_chunk((1, 0, 0), chunk[:5] + b"\0\0\1" + chunk[8:])
    frames = FORMAT.read(damaged, 0, 2, {})["frames"]
    assert frames[0].shape == (1062, 1028)
    with pytest.raises(
        BadInput,
        match=r"frame 1 of /entry/data/data cannot be decompressed \(its chunk says .*\); the file is damaged",
    ):
        frames[1]


def test_a_compression_that_nobody_knows_is_one_sentence(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "strange.h5"
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 4, 4))
        properties.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        space, kind = h5py.h5s.create_simple((2, 4, 4)), h5py.h5t.STD_U32LE
        made = h5py.h5d.create(file.id, b"data", kind, space, properties)
        for row in range(2):
            made.write_direct_chunk((row, 0, 0), bytes(64))
    with pytest.raises(BadInput, match="compressed with HDF5 filter 31999, which is not known here; install hdf5plugin"):
        FORMAT.read(path, 0, 2, {"frames": "/data"})


def test_more_frames_than_there_are(measured: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="frames 0 to 9 were asked for, but it holds 4"):
        FORMAT.read(measured, 0, 9, {})
    with pytest.raises(BadInput, match="there is no dataset /entry/nothing"):
        FORMAT.probe(measured, {"frames": "/entry/nothing"})
