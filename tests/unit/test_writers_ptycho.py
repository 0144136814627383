"""A reconstructed object in the result file: axes in metres, pictures, and the names of a CXI file."""

import dataclasses
import pathlib

import h5py
import msgspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from beamline_side.writers.jpeg import write_jpeg
from beamline_side.writers.nexus import write_result
from beamline_side.writers.tiff import write_tiff
from beamtide import registry
from beamtide.results.verdict import said_by, warning_of
from cluster_side.modalities.base import checked, run, sendable
from tests.ptycho_scans import Truth, simulate
from tests.writer_scans import content, line

PTYCHO = registry.find("modalities", "ptychography")


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate(side=5, size=32)


def test_the_file_shows_the_object_and_reads_as_cxi(truth: Truth, tmp_path: pathlib.Path) -> None:
    settings = truth.settings(recipe="LSQML 3", device="cpu", frc=True)
    arrays = dict(run(PTYCHO, truth.arrays(), settings))
    request, _ = line(0)
    headers = checked(arrays, PTYCHO.declared(settings), 25)
    whole = msgspec.structs.replace(request.task, start=0, stop=25)
    stored = msgspec.structs.replace(request, task=whole, datasets=headers)
    drawn = write_result(tmp_path / "ptycho.h5", dataclasses.replace(content(), results=[(stored, sendable(arrays))]))
    assert {"object_phase", "object_amplitude"} <= {shown.name for shown in drawn}
    with h5py.File(tmp_path / "ptycho.h5") as file:
        shown = file[f"entry/{file['entry'].attrs['default']}"]
        assert shown.attrs["signal"] == "data"
        assert shown["data"].shape == arrays["object"].shape
        assert shown["object_x"].attrs["units"] == "m"
        np.testing.assert_allclose(np.diff(shown["object_x"][()]), truth.pixel)
        np.testing.assert_array_equal(file["entry_1/image_1/data"][()], arrays["object"])
        np.testing.assert_array_equal(file["entry_1/image_2/data"][()], arrays["probe"])
        assert file["cxi_version"][()] == 160
        assert file["entry_1/image_1/image_size"][0] == pytest.approx(arrays["object"].shape[1] * truth.pixel)
        for name in ("error", "position_x_used", "position_x_refined", "pixel_size", "frc", "frc_half_bit", "resolution"):
            assert f"entry/data/{name}" in file
            assert file[f"entry/data/{name}"].attrs["units"]
        verdict, advice = (file[f"entry/data/quality/{name}"].asstr()[()] for name in ("verdict", "advice"))
        assert (verdict, advice) == tuple(arrays[f"quality/{name}"].item().decode() for name in ("verdict", "advice"))
        assert "quality" not in file["entry/spectra"], "a sentence is no spectrum"
        assert file["entry/data/quality/explained"][()] == arrays["quality/explained"]
        assert said_by(headers) == f"{verdict}: {advice}" == warning_of(headers)
        assert verdict in ("did not converge", "cannot tell"), "three iterations are too few"
        assert shown.attrs["title"].endswith(f"; {verdict}: {advice}")
    phase = next(one for one in drawn if one.name == "object_phase")
    assert phase.warning == f"{verdict}: {advice}"
    write_jpeg(tmp_path / "phase.jpg", phase, "")
    write_jpeg(tmp_path / "plain.jpg", dataclasses.replace(phase, warning=""), "")
    with Image.open(tmp_path / "phase.jpg") as warned, Image.open(tmp_path / "plain.jpg") as plain:
        assert warned.width == plain.width
        assert warned.height > plain.height, "the warning stands below the picture"
        assert np.asarray(warned)[plain.height :].max() > 200
    write_tiff(tmp_path / "phase.tif", phase, {})
    assert (tmp_path / "phase.tif").stat().st_size > 4 * phase.values.size
    with tifffile.TiffFile(tmp_path / "phase.tif") as picture:
        assert f"quality={phase.warning}" in picture.imagej_metadata["Info"]
