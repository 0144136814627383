"""Frames that are read when asked for: what numpy would give, without the memory; and the kernels that get them."""

import pathlib
import tracemalloc
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.formats.lazy import InTurn, LazyFrames, joined
from cluster_side.modalities.base import run
from cluster_side.modalities.ptychography.frames import Cut, prepare

EIGER = registry.find("formats", "eiger")


class Kept(LazyFrames):
    """Lazy frames of an array."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array.shape, array.dtype)
        self._array = array

    def read(self, rows: range) -> Iterator[np.ndarray]:
        yield from (self._array[row] for row in rows)


def written(folder: pathlib.Path, frames: np.ndarray, per_file: int) -> list[Any]:
    """Write frames into files as an Eiger does, and return how they are read."""
    found = []
    for first in range(0, len(frames), per_file):
        block, path = frames[first : first + per_file], folder / f"{first}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("entry/data/data", data=block, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle())
        found.append(EIGER.read(path, 0, len(block), {})["frames"])
    return found


@given(data=st.data(), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_parts_in_turn_are_one_array(data: st.DataObject, lengths: list[int]) -> None:
    whole = np.arange(sum(lengths) * 6, dtype="u2").reshape(-1, 2, 3)
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    lazy = joined([Kept(part) if data.draw(st.booleans()) else part for part in parts])
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size, len(lazy)) == (whole.shape, whole.dtype, 3, whole.size, len(whole))
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    np.testing.assert_array_equal(np.array(list(lazy)).reshape(whole.shape), whole)
    some = slice(
        *(data.draw(st.none() | st.integers(-len(whole), len(whole))) for _ in range(2)), data.draw(st.sampled_from([1, 2, 3]))
    )
    np.testing.assert_array_equal(lazy[some], whole[some])
    for at in range(len(whole)):
        np.testing.assert_array_equal(lazy[at], whole[at])
    with pytest.raises(IndexError):
        lazy[len(whole)]


def test_files_that_do_not_fit_together_are_told() -> None:
    with pytest.raises(BadInput, match="did the detector's settings change"):
        InTurn([Kept(np.zeros((1, 2, 2), "u2")), np.zeros((1, 3, 3), "u2")])


@pytest.mark.parametrize("per_file", [5, 2])
def test_centres_of_mass_of_eiger_frames(per_file: int, tmp_path: pathlib.Path) -> None:
    frames = np.random.default_rng(0).poisson(5, (5, 16, 24)).astype("u4")
    values = {"frames": "frames", "geometry": {"distance": 1.0, "pixel_size": 75e-6}}
    dpc = registry.find("modalities", "dpc")
    lazy, plain = (run(dpc, {"frames": one}, values) for one in (joined(written(tmp_path, frames, per_file)), frames))
    for name in plain:
        np.testing.assert_array_equal(lazy[name], plain[name], err_msg=name)


@pytest.mark.parametrize("centre", ["auto", (40.0, 52.0), "corner"])
@pytest.mark.parametrize("rebin", [1, 2])
def test_frames_for_ptychography_are_cut_while_they_are_read(centre: Any, rebin: int, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:80, :100]
    frames = rng.poisson(50 * np.exp(-((y - 40) ** 2 + (x - 52) ** 2) / 200), (6, 80, 100)).astype("u4")
    frames[:, 38] = 2**32 - 1
    frames[3, 44, 50] = 2**32 - 1
    cut = Cut(centre, 32, rebin)
    lazy, plain = (prepare(one, cut) for one in (joined(written(tmp_path, frames, 4)), frames))
    np.testing.assert_array_equal(lazy.counts, plain.counts)
    np.testing.assert_array_equal(lazy.good, plain.good)
    good = (frames < 2**32 - 1).all(axis=0)
    if centre == "corner":
        np.testing.assert_array_equal(plain.counts, np.where(good, frames, 0))
        return
    row, column = (round(at) - 16 for at in plain.centre)
    window = np.where(good, frames, 0)[:, row : row + 32, column : column + 32]
    bins = (6, 32 // rebin, rebin, 32 // rebin, rebin)
    naive, kept = (
        window.reshape(bins).sum(axis=(2, 4)),
        good[row : row + 32, column : column + 32].reshape(bins[1:]).all(axis=(1, 3)),
    )
    expected = np.fft.ifftshift(np.where(kept, naive, 0), axes=(1, 2))
    np.testing.assert_array_equal(plain.counts, expected)
    np.testing.assert_array_equal(plain.good, np.fft.ifftshift(kept))


def test_pixels_that_are_no_numbers_are_zero_in_all_frames() -> None:
    frames = np.ones((3, 16, 16))
    frames[0, 2, 3], frames[1, 4, 5], frames[2, 6, 7] = np.nan, np.inf, -1.0
    for centre in ("corner", (8.0, 8.0), "auto"):
        found = prepare(frames, Cut(centre))
        assert np.isfinite(found.counts).all()
        assert np.count_nonzero(~found.good) == 3
        assert not found.counts[:, ~found.good].any()


def test_a_large_detector_needs_the_memory_of_what_is_used(tmp_path: pathlib.Path) -> None:
    frames = np.ones((24, 512, 512), "u4")
    lazy = joined(written(tmp_path, frames, 8))
    tracemalloc.start()
    prepare(lazy, Cut((256.0, 256.0), 64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < frames.nbytes / 4
