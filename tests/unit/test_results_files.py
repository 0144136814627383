"""`beamtide.open`: results from the folder alone."""

import pathlib

import h5py
import numpy as np
import pytest

import beamtide
from beamline_side.writers.files import ProductFiles
from beamtide.errors import BadInput
from beamtide.results import reading
from tests.writer_scans import content, line, product_of, state_of


@pytest.fixture
def processed(tmp_path: pathlib.Path) -> pathlib.Path:
    ProductFiles(tmp_path, product_of(), state_of(), ("hdf5", "tiff")).write(content())
    return tmp_path


def test_a_map_comes_with_its_axes(processed: pathlib.Path) -> None:
    found = beamtide.open("scan_1", processed=processed)
    iron = found["xrf/area/Fe_K"]
    assert iron.values.shape == (4, 6)
    assert (iron.units, iron.axes, iron.coord_units["x"]) == ("counts", ("y", "x"), "um")
    assert np.asarray(iron)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.rows("xrf/area/Fe_K").values[:9].tolist() == list(range(9))
    assert found["xrf/sum_spectrum"].axes == ("energy",)
    assert found["xrf/spectra"].values.shape == (24, 8)
    assert "xrf/area/Cu_K" in found
    assert reading.list_results(processed) == ["scan_1"]


def test_wrong_names_get_a_sentence(processed: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="no dataset 'xrf/area/Au_L'; there are: xrf/area/Cu_K, xrf/area/Fe_K"):
        beamtide.open("scan_1", processed=processed)["xrf/area/Au_L"]
    with pytest.raises(BadInput, match=r"no results of 'scan_2'.*scans with results there: scan_1"):
        beamtide.open("scan_2", processed=processed)
    with pytest.raises(AttributeError):
        beamtide.nothing  # noqa: B018


def test_a_running_scan_is_read_from_its_live_file(tmp_path: pathlib.Path) -> None:
    files = ProductFiles(tmp_path, product_of(), state_of(phase="running"), ("hdf5",))
    files.append([line(0)], 6)
    assert files._live is not None
    files._live.close()  # the same process may not read what it writes; another one may, see test_writers_files
    iron = beamtide.open("scan_1", processed=tmp_path)["xrf/area/Fe_K"]
    assert iron.values[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(iron.values[1:]).all()


def test_verify_notices_one_changed_number(processed: pathlib.Path) -> None:
    path = processed / "beamtide/scan_1/xrf.h5"
    assert reading.verify(path) == []
    with h5py.File(path, "r+") as root:
        root["entry/data/spectra"][3, 3] += 1
    (problem,) = reading.verify(path)
    assert "entry/data/spectra is not what was written" in problem
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadInput, match="cannot read"):
        reading.verify(path)


def test_export_by_ending(processed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = beamtide.open("scan_1", processed=processed)
    iron = found["xrf/area/Fe_K"]
    for ending in ("npy", "csv", "tif"):
        assert reading.export(iron, tmp_path / f"iron.{ending}").exists()
    assert np.load(tmp_path / "iron.npy").shape == (4, 6)
    assert np.loadtxt(tmp_path / "iron.csv", delimiter=",")[0, 5] == 5
    reading.export(found["xrf/sum_spectrum"], tmp_path / "spectrum.csv")
    assert (tmp_path / "spectrum.csv").read_text().startswith("# energy (keV),xrf/sum_spectrum (counts)")
    with pytest.raises(BadInput, match="choose an ending of"):
        reading.export(iron, tmp_path / "iron.xlsx")


def test_copy_takes_results_and_maps_but_nothing_unfinished(processed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (processed / "beamtide/scan_1/.xrf.h5.part").write_bytes(b"half")
    copied = reading.copy_to("scan_1", tmp_path / "usb", processed)
    assert (copied / "xrf.h5").exists()
    assert (copied / "maps/xrf_area_Fe_K.tif").exists()
    assert not list(copied.glob(".*"))
    with pytest.raises(BadInput, match="exists already"):
        reading.copy_to("scan_1", tmp_path / "usb", processed)


def test_hdf5_files_of_other_writers_beside_a_result_are_no_results(tmp_path: pathlib.Path) -> None:
    ProductFiles(tmp_path, product_of(), state_of(), ("hdf5", "ptypy")).write(content())
    results = reading.open("scan_1", processed=tmp_path)
    assert results.files.keys() == {"xrf", "xrf_positions"}
    assert {name.partition("/")[0] for name in results} == {"xrf"}
