"""CXI and .ptyd files: frames, positions and geometry come out as the kernel wants them."""

import pathlib

import h5py
import numpy as np
import pytest

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.formats.ptychography import JOULE_PER_KEV
from cluster_side.modalities.base import run
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
