"""The worked examples of docs/how-to-formats.md: a scan of one image a file, with a lost and damaged ones; and a map of MAPS."""

import pathlib
import shutil

import h5py
import numpy as np
import pytest
import tifffile

import beamtide
from beamtide import testing
from beamtide.cli import main
from tests import how_to
from tests.unit.test_fabio_format import cbf
from tests.unit.test_maps_format import NAMES

PAGE = how_to.ROOT / "docs" / "how-to-formats.md"
SHAPE, PIXELS = (3, 4), (40, 50)
LOST, CHANGED, REPLACED, CUT = 2, 5, 9, 11
"""Indexes whose file never came, whose checksum is wrong, that is a web page, and that ends too early."""
PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [40, 50], "orientation": 3}
Distance: 0.1
Poni1: 0.001
Poni2: 0.002
Rot1: 0.01
Rot2: 0.02
Rot3: 0.0
Wavelength: 1e-10
"""


def images() -> np.ndarray:
    """Poisson counts, with marks of the detector where nothing was measured."""
    chance = np.random.default_rng(7)
    found = chance.poisson(50, (SHAPE[0] * SHAPE[1], *PIXELS)).astype(np.int32)
    found[:, 12:15], found[:, 30, 7] = -1, -2
    return found


@pytest.fixture
def site(tmp_path: pathlib.Path) -> pathlib.Path:
    how_to.written("Images", tmp_path, PAGE)
    for name in ("raw/scan_1", "processed", "shared"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shared" / "lab6.poni").write_text(PONI)
    mask = np.zeros(PIXELS, np.uint8)
    mask[:, 20:22] = 1
    tifffile.imwrite(tmp_path / "shared" / "mask.tif", mask)
    for index, image in enumerate(images()):
        content = bytearray(cbf(image[None]))
        if index == CHANGED:
            content[content.index(b"\x0c\x1a\x04\xd5") + 500] ^= 4
        if index == REPLACED:
            content = bytearray(b"<!DOCTYPE html><p>504 Gateway Timeout")
        if index == CUT:
            del content[1500:]
        if index != LOST:
            (tmp_path / "raw" / "scan_1" / f"scan_1_{index + 1:05d}.cbf").write_bytes(content)
    return tmp_path


@pytest.mark.long
@pytest.mark.system
def test_a_scan_of_one_image_a_file_is_what_pyfai_says_of_each(site: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fabio
    import pyFAI

    monkeypatch.chdir(site)
    assert main.run(["check", "site.yaml"]) == 0
    assert main.run(["run", "scan_1", "-c", "site.yaml", "--shape", "3x4"]) == 0
    patterns = beamtide.open("scan_1", processed=site / "processed")["xrd/azint1d/I"].values.reshape(-1, 100)
    ai, mask = pyFAI.load(str(site / "shared" / "lab6.poni")), tifffile.imread(site / "shared" / "mask.tif")
    bad = {LOST, CHANGED, REPLACED, CUT}
    for index in sorted(set(range(SHAPE[0] * SHAPE[1])) - bad):
        image = fabio.open(str(site / "raw" / "scan_1" / f"scan_1_{index + 1:05d}.cbf")).data
        expected = ai.integrate1d_ng(
            image,
            100,
            mask=mask,
            dummy=-2,
            delta_dummy=1.5,
            unit="q_nm^-1",
            method=("bbox", "csr", "cython"),
            polarization_factor=0.99,
        ).intensity
        np.testing.assert_allclose(patterns[index], expected, rtol=1e-5)
    assert np.isnan(patterns[sorted(bad)]).all()
    with h5py.File(next((site / "processed").rglob("xrd.h5"))) as file:
        holes = file["entry/holes"]
        reasons = dict(zip(holes["start"][()].tolist(), holes["reason"].asstr()[()], strict=True))
    assert "scan_1_00003.cbf never came" in reasons[LOST]
    assert "frame 0 cannot be read (the MD5 of its image is" in reasons[CHANGED]
    assert "this looks like an HTML page" in reasons[REPLACED]
    assert "scan_1_00012.cbf ends at byte 1500" in reasons[CUT]


def test_a_map_of_maps_is_fitted_point_by_point(test_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    how_to.written("MAPS", tmp_path, PAGE)
    shutil.copy(test_data / "xrf" / "nanomax_fit_12keV.cfg", tmp_path / "fit.cfg")
    (tmp_path / "raw" / "img.dat").mkdir(parents=True)
    chance = np.random.default_rng(1)
    counts = chance.poisson(20, (2048, 2, 3)).astype(np.float32)
    with h5py.File(tmp_path / "raw" / "img.dat" / "2xfm_0430.h50", "w") as file:
        file.create_dataset("MAPS/Spectra/mca_arr", data=counts, chunks=(2048, 1, 1), compression="gzip", compression_opts=7)
        file["MAPS/Spectra/Input_Counts"] = np.full((2, 3), 110, np.float32)
        file["MAPS/Spectra/Output_Counts"] = np.full((2, 3), 100, np.float32)
        file["MAPS/Scalers/Names"], file["MAPS/Scalers/Values"] = np.array(NAMES, "S256"), np.ones((3, 2, 3), np.float32)
    results = testing.run_pipeline(tmp_path / "maps.yaml", "2xfm_0430", raw=tmp_path / "raw")
    expected = 1.1 * counts.sum(axis=0)
    np.testing.assert_allclose(np.reshape(results["xrf/total_counts"].values, (2, 3)), expected, rtol=1e-5)
