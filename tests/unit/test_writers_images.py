"""Pictures: calibrated for ImageJ, the right way up, all values there."""

import pathlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from beamline_side.writers import maps
from beamline_side.writers.files import ProductFiles
from beamline_side.writers.jpeg import GREY, coloured, write_jpeg
from beamline_side.writers.tiff import upright, write_tiff
from tests.writer_scans import content, positions, product_of, state_of


def letter(step_y: float = 1.0, step_x: float = 0.5) -> maps.Map:
    values = np.arange(24.0).reshape(4, 6)
    values[0, 0] = np.nan
    axes = (maps.Axis("y", np.arange(4) * step_y, "um"), maps.Axis("x", np.arange(6) * step_x, "um"))
    return maps.Map("area/Fe_K", values, "counts", axes)


def test_tiff_is_calibrated_and_readable(tmp_path: pathlib.Path) -> None:
    write_tiff(tmp_path / "a.tif", letter(), {"scan": "scan_1"})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        image, page, told = file.asarray(), file.pages[0], file.imagej_metadata
        assert told is not None
        assert not file.is_bigtiff
        assert isinstance(page, tifffile.TiffPage)
        assert page.compression == tifffile.COMPRESSION.NONE
    assert image.dtype == np.float32
    assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == pytest.approx(2.0)
    assert page.tags["YResolution"].value[0] / page.tags["YResolution"].value[1] == pytest.approx(1.0)
    assert (told["unit"], told["min"], told["max"]) == ("micron", 1.0, 23.0)
    assert "units=counts" in told["Info"]
    assert np.isnan(image[3, 0]), "the first index, lowest y, is at the bottom"
    assert image[0, 5] == 23


@pytest.mark.parametrize(("step_y", "step_x", "top_left"), [(1, 1, 18), (-1, 1, None), (1, -1, 23), (-1, -1, 5)])
def test_coordinates_grow_to_the_right_and_upwards(step_y: float, step_x: float, top_left: float | None) -> None:
    corner = upright(letter(step_y, step_x))[0, 0]
    assert np.isnan(corner) if top_left is None else corner == top_left


def test_jpeg_is_enlarged_by_whole_numbers_and_marks_holes(tmp_path: pathlib.Path) -> None:
    write_jpeg(tmp_path / "a.jpg", letter(), "Fe K")
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.size == (6 * 43, 4 * 43)
        assert picture.info["comment"] == b"Fe K"
        hole, bright = picture.getpixel((20, 4 * 43 - 20)), picture.getpixel((5 * 43 + 20, 20))
    assert isinstance(hole, tuple)
    assert isinstance(bright, tuple)
    assert max(abs(value - int(GREY[0])) for value in hole) < 6
    assert bright[0] > 200 > bright[2]


@pytest.mark.parametrize("value", [np.nan, 0.0, 1e30])
def test_a_flat_map_is_a_picture_too(value: float) -> None:
    assert coloured(np.full((3, 3), value)).shape == (3, 3, 3)


def test_all_maps_of_a_result_get_pictures(tmp_path: pathlib.Path) -> None:
    files = ProductFiles(tmp_path, product_of(), state_of(), ("hdf5", "tiff", "jpeg"))
    result = files.write(content(positions=positions())).result
    for name in ("area/Fe_K", "area/Cu_K", "frames"):
        flat = name.replace("/", "_")
        assert tifffile.imread(result.parent / "maps" / f"xrf_{flat}.tif").shape == (4, 6)
        assert (result.parent / "preview" / f"xrf_{flat}.jpg").exists()
    assert [path.name for path in tmp_path.rglob(".*")] == [".xrf.written.json"]


def test_pictures_without_a_result_file(tmp_path: pathlib.Path) -> None:
    result = ProductFiles(tmp_path, product_of(), state_of(), ("tiff",)).write(content()).result
    assert (result.parent / "maps" / "xrf_area_Fe_K.tif").exists()
    assert not result.exists()
