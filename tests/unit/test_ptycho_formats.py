"""CXI and .ptyd files: frames, positions and geometry come out as the kernel wants them."""

import pathlib

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.formats.base import LostFrames, Unfinished
from beamtide.formats.ptychography import JOULE_PER_KEV
from cluster_side.modalities.base import run
from cluster_side.modalities.ptychography import scan
from cluster_side.modalities.ptychography.spec import PtychographySettings
from tests.ptycho_scans import DETECTOR_PIXEL, DISTANCE, ENERGY, Truth, simulate


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate(side=5, size=32)


def cxi(path: pathlib.Path, truth: Truth) -> pathlib.Path:
    """Write what a beamline writes: columns x, y, z in metres, energy in joules."""
    positions = truth.arrays()["positions"]
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"] = truth.frames
        file["entry_1/data_1/translation"] = np.column_stack([positions[:, 1], positions[:, 0], 0 * positions[:, 0]])
        file["entry_1/instrument_1/source_1/energy"] = ENERGY * JOULE_PER_KEV
        file["entry_1/instrument_1/detector_1/distance"] = DISTANCE
        file["entry_1/instrument_1/detector_1/x_pixel_size"] = DETECTOR_PIXEL
    return path


def ptyd(path: pathlib.Path, truth: Truth) -> pathlib.Path:
    with h5py.File(path, "w") as file:
        file["chunks/0/data"], file["chunks/0/positions"] = truth.frames, truth.arrays()["positions"]
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = ENERGY, DISTANCE, np.full(2, DETECTOR_PIXEL)
    return path


@pytest.mark.parametrize(("name", "write"), [("cxi", cxi), ("ptyd", ptyd)])
def test_a_file_is_all_that_a_scan_needs(name: str, write, truth: Truth, tmp_path: pathlib.Path) -> None:
    path, known = write(tmp_path / "scan.h5", truth), registry.find("formats", name)
    assert known.probe(path, {}).frames == 25
    arrays = known.read(path, 2, 25, {})
    np.testing.assert_array_equal(arrays["frames"], truth.frames[2:])
    np.testing.assert_allclose(arrays["positions"], truth.arrays()["positions"][2:])
    np.testing.assert_allclose(arrays["geometry"], np.tile([ENERGY, DISTANCE, DETECTOR_PIXEL], (23, 1)))
    found = run(
        registry.find("modalities", "ptychography"),
        arrays,
        {"centre": "corner", "modes": 1, "recipe": "LSQML 2", "device": "cpu"},
    )
    assert found["pixel_size"] == pytest.approx(truth.pixel)


def test_other_lengths_and_missing_places_are_said(truth: Truth, tmp_path: pathlib.Path) -> None:
    path = cxi(tmp_path / "scan.cxi", truth)
    with h5py.File(path, "a") as file:
        del file["entry_1/data_1/translation"]
        file["entry_1/data_1/translation"] = np.zeros((24, 3))
    with pytest.raises(BadInput, match="25 frames and 24 positions"):
        registry.find("formats", "cxi").probe(path, {})
    with pytest.raises(BadInput, match="there are no frames in it; looked for chunks/0/data"):
        registry.find("formats", "ptyd").probe(path, {})


@pytest.mark.parametrize(
    ("place", "value", "unit"),
    [
        ("entry_1/instrument_1/source_1/energy", 1000 * ENERGY, "eV"),
        ("entry_1/instrument_1/source_1/energy", ENERGY, "keV"),
        ("entry_1/instrument_1/source_1/energy", ENERGY * JOULE_PER_KEV, "J"),
        ("entry_1/instrument_1/source_1/energy", ENERGY * JOULE_PER_KEV, None),
        ("entry_1/instrument_1/beam_1/incident_wavelength", 12.3984198 / ENERGY, "angstrom"),
        ("entry_1/instrument_1/source_1/wavelength", 1.23984198e-9 / ENERGY, None),
        ("entry_1/instrument_1/detector_1/distance", 1000 * DISTANCE, "mm"),
        ("entry_1/instrument_1/detector_1/distance", DISTANCE, b"meter"),
        ("entry_1/instrument_1/detector_1/x_pixel_size", 1e6 * DETECTOR_PIXEL, "micrometer"),
        ("entry_1/data_1/translation", 1e6, "um"),
    ],
)
def test_units_of_a_file_are_obeyed(
    place: str, value: float, unit: str | bytes | None, truth: Truth, tmp_path: pathlib.Path
) -> None:
    """As MAX IV (eV), Diamond (mm, micrometer), and LCLS (J, m) write them."""
    path = cxi(tmp_path / "scan.cxi", truth)
    with h5py.File(path, "a") as file:
        if "wavelength" in place:
            del file["entry_1/instrument_1/source_1/energy"]
        elif "translation" in place:
            value = file[place][()] * value
            del file[place]
        else:
            del file[place]
        file[place] = value
        if unit is not None:
            file[place].attrs["units"] = unit
    arrays = registry.find("formats", "cxi").read(path, 0, 25, {})
    np.testing.assert_allclose(arrays["geometry"][0], [ENERGY, DISTANCE, DETECTOR_PIXEL], rtol=1e-6)
    np.testing.assert_allclose(arrays["positions"], truth.arrays()["positions"], rtol=1e-6)


@pytest.mark.parametrize(("unit", "sentence"), [("furlong", "'furlong' is not known"), ("mm", "'mm' is a unit of length")])
def test_units_that_cannot_be_are_refused(unit: str, sentence: str, truth: Truth, tmp_path: pathlib.Path) -> None:
    path = cxi(tmp_path / "scan.cxi", truth)
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/source_1/energy"].attrs["units"] = unit
    with pytest.raises(BadInput, match=f"source_1/energy: its attribute units: .*{sentence}"):
        registry.find("formats", "cxi").read(path, 0, 25, {})


def test_pixels_that_are_not_square_are_refused(truth: Truth, tmp_path: pathlib.Path) -> None:
    path = cxi(tmp_path / "scan.cxi", truth)
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1/y_pixel_size"] = 2 * DETECTOR_PIXEL
    with pytest.raises(BadInput, match="only square pixels are reconstructed"):
        registry.find("formats", "cxi").read(path, 0, 25, {})
    path = ptyd(tmp_path / "scan.ptyd", truth)
    with h5py.File(path, "a") as file:
        file["meta/psize"][1] *= 1.5
    with pytest.raises(BadInput, match="only square pixels are reconstructed"):
        registry.find("formats", "ptyd").read(path, 0, 25, {})


@given(st.sampled_from(["u1", "u4", ">u4", "i8", "?"]), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_mask_of_a_cxi_file_is_used(truth: Truth, tmp_path: pathlib.Path, dtype: str, each: bool, seed: int) -> None:
    """0 is good, and so is the bit that only says there is signal; a pixel that is bad in one frame is bad."""
    path, rng, shape = cxi(tmp_path / "scan.cxi", truth), np.random.default_rng(seed), truth.frames.shape
    bits = [0, 0, 0, 4, 1] if dtype in ("?", "u1") else [0, 0, 0x10000, 4, 0x10001]
    mask = np.zeros(shape if each else shape[1:], dtype)
    some = rng.random(mask.shape) < 0.01
    mask[some] = rng.choice(bits, int(some.sum())).astype(dtype)
    bad = (mask.astype(np.int64) & ~0x10000) != 0
    bad = bad.any(axis=0) if each else bad
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1/mask"] = mask
    arrays = registry.find("formats", "cxi").read(path, 3, 20, {})
    np.testing.assert_array_equal(scan.mask_of(arrays, None), bad)
    np.save(tmp_path / "mask.npy", np.eye(32))
    np.testing.assert_array_equal(scan.mask_of(arrays, tmp_path / "mask.npy"), bad | (np.eye(32) > 0))
    prepared = scan.scan_of(arrays, PtychographySettings(centre="corner"), None).prepared
    np.testing.assert_array_equal(prepared.good, ~bad)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=12), st.sampled_from(["", "frame", "scan"]), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_chunks_of_a_ptyd_are_read(tmp_path: pathlib.Path, lengths: list[int], weights: str, data: st.DataObject) -> None:
    """In the order of their numbers (10 after 9), with weights (0 = bad) of each frame, or of all, or none."""
    rng, total = np.random.default_rng(len(lengths)), sum(lengths)
    frames, positions = rng.poisson(3.0, (total, 8, 8)), rng.normal(size=(total, 2))
    good = rng.random((total, 8, 8)) > 0.05
    path, before = tmp_path / "scan.ptyd", 0
    with h5py.File(path, "w") as file:
        for number, length in enumerate(lengths):
            rows = slice(before, before := before + length)
            file[f"chunks/{number}/data"], file[f"chunks/{number}/positions"] = frames[rows], positions[rows]
            if weights == "frame":
                file[f"chunks/{number}/weights"] = good[rows].astype(float)
            else:
                file.create_group(f"chunks/{number}/weights")
        if weights == "scan":
            file["meta/weight2d"] = good[0]
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = ENERGY, DISTANCE, DETECTOR_PIXEL
    known = registry.find("formats", "ptyd")
    assert known.probe(path, {}).frames == total
    first = data.draw(st.integers(0, total - 1))
    last = data.draw(st.integers(first + 1, total))
    arrays = known.read(path, first, last, {})
    np.testing.assert_array_equal(arrays["frames"], frames[first:last])
    np.testing.assert_array_equal(arrays["positions"], positions[first:last])
    bad = {"frame": ~good.all(axis=0), "scan": ~good[0], "": None}[weights]
    if bad is None:
        assert "mask" not in arrays
    else:
        np.testing.assert_array_equal(scan.mask_of(arrays, None), bad)


def test_a_chunk_that_is_lost_is_said(truth: Truth, tmp_path: pathlib.Path) -> None:
    path = ptyd(tmp_path / "scan.ptyd", truth)
    with h5py.File(path, "a") as file:
        file.copy("chunks/0", "chunks/2")
    with pytest.raises(BadInput, match="there is no chunks/1, but a 2"):
        registry.find("formats", "ptyd").probe(path, {})
    with h5py.File(path, "a") as file:
        file["chunks/1"] = h5py.ExternalLink("scan.ptyd.part001", "/")
    with pytest.raises(Unfinished, match=r"chunks/1 leads to a file that is not there"):
        registry.find("formats", "ptyd").probe(path, {})


def test_a_damaged_frame_of_a_chunk_costs_that_frame(tmp_path: pathlib.Path) -> None:
    known, frames = registry.find("formats", "ptyd"), np.arange(5 * 8 * 8, dtype="u4").reshape(5, 8, 8)
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for number, part in enumerate((slice(0, 2), slice(2, 5))):
            made = file.create_dataset(f"chunks/{number}/data", data=frames[part], chunks=(1, 8, 8), **hdf5plugin.Bitshuffle())
            file[f"chunks/{number}/positions"] = np.zeros((len(frames[part]), 2))
        made.id.write_direct_chunk((1, 0, 0), b"\xff" * 40)
    with pytest.raises(LostFrames) as caught:
        known.read(tmp_path / "scan.ptyd", 0, 5, {})
    assert [(one.first, one.last) for one in caught.value.missing] == [(3, 4)]
    for first, last in ((0, 3), (4, 5)):
        np.testing.assert_array_equal(known.read(tmp_path / "scan.ptyd", first, last, {})["frames"], frames[first:last])
