"""The positions file that ptypy's P06 loader reads, read the way that loader reads it."""

import dataclasses
import pathlib

import h5py
import numpy as np
import pytest

from beamline_side.writers.files import ProductFiles
from beamline_side.writers.maps import Positions
from beamline_side.writers.ptypy import write_positions
from beamtide.errors import BadInput
from tests.writer_scans import content, positions, state_of


def as_ptypy_reads(path: pathlib.Path, detector: str) -> tuple[np.ndarray, np.ndarray]:
    """What P06Scan and P06Scan_scanning_mirror make of the file: positions in m and centres in pixels, (y, x)."""
    with h5py.File(path, "r") as file:
        x, y = file["/axes/scanx"][:] * 1e-6, file["/axes/scany"][:] * 1e-6
        centre = file[f"detectors/{detector}/centre_of_mass"]
        com = {axis: centre[axis][:] for axis in ("x", "y")}
    known, seen = ~np.isnan(x), ~np.isnan(com["x"])
    return np.vstack([y[known], x[known]]).T, np.vstack([com["y"][seen], com["x"][seen]]).T


def result_with(path: pathlib.Path, **datasets: tuple[np.ndarray, str]) -> pathlib.Path:
    with h5py.File(path, "w") as file:
        file.create_group("entry").attrs["pipeline"] = "eiger_4m_01"
        file.create_group("entry/data")
        for name, (values, unit) in datasets.items():
            file[f"entry/data/{name}"] = values
            file[f"entry/data/{name}"].attrs["units"] = unit
    return path


def test_positions_and_centres_as_the_loader_wants_them(tmp_path: pathlib.Path) -> None:
    x, y, com = np.array([1.0, 2.0, np.nan, 4.0]), np.array([5.0, np.nan, 7.0, 8.0]), np.arange(4.0)
    result = result_with(
        tmp_path / "r.h5", com_x=(com, "px"), com_y=(com + 10, "px"), samz=(np.full(4, 250.0), "um"), scanu=(x, "um")
    )
    write_positions(tmp_path / "p.h5", result, Positions(x, y * 1e-3, "um", "mm"))
    places, centres = as_ptypy_reads(tmp_path / "p.h5", "eiger_4m_01")
    np.testing.assert_allclose(places, [[5e-6, 1e-6], [8e-6, 4e-6]], err_msg="a lost trigger is dropped, with both coordinates")
    np.testing.assert_allclose(centres, [[10, 0], [13, 3]])
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_allclose(file["axes/samz"], 0.25)
        assert file["axes/samz"].attrs["units"] == "mm"


def test_without_positions_there_is_no_file(tmp_path: pathlib.Path) -> None:
    result = result_with(tmp_path / "r.h5", com_x=(np.zeros(2), "px"))
    with pytest.raises(BadInput, match="needs x and y: name the pipeline"):
        write_positions(tmp_path / "p.h5", result, None)
    with pytest.raises(BadInput, match="'deg' is a unit of angle"):
        write_positions(tmp_path / "p.h5", result, Positions(np.zeros(2), np.zeros(2), "deg", "um"))


def test_it_lies_beside_the_result_file(tmp_path: pathlib.Path) -> None:
    made = content()
    files = ProductFiles(tmp_path, made.product, state_of(), ("hdf5", "ptypy"))
    result = files.write(dataclasses.replace(made)).result
    with h5py.File(result.with_name("xrf_positions.h5")) as file:
        np.testing.assert_allclose(file["axes/scanx"], positions().x)
        np.testing.assert_allclose(file["axes/scany"], positions().y)
        assert "detectors" not in file
