"""What a result file opens on, and what a spectrum lies over, is what the modality says of its datasets."""

import pathlib

import h5py
import msgspec
import numpy as np
import pytest

from beamline_side.writers.hdf5 import LiveFile
from beamline_side.writers.nexus import write_result
from beamtide.messages.results import DatasetHeader, StoreRequest
from cluster_side.modalities.base import checked
from cluster_side.modalities.xrf.spec import MODALITY as XRF
from tests.writer_scans import content, line, product_of, state_of


def result(headers: tuple[DatasetHeader, ...], arrays: dict[str, np.ndarray]) -> list[tuple[StoreRequest, dict[str, np.ndarray]]]:
    """A scan of one line of six points."""
    return [(msgspec.structs.replace(line(0)[0], datasets=headers), arrays)]


def opened_on(folder: pathlib.Path, headers: tuple[DatasetHeader, ...], arrays: dict[str, np.ndarray]) -> str:
    path = folder / "r.h5"
    write_result(path, content(results=result(headers, arrays), scan=state_of(rows=1), positions=None))
    with h5py.File(path) as root:
        return str(root["entry"].attrs["default"])


@pytest.mark.parametrize(("said", "expected"), [((), "a"), (("b",), "b"), (("b", "c"), "c"), (("a", "b", "c"), "c")])
def test_the_strongest_of_those_that_want_to_be_shown(tmp_path: pathlib.Path, said: tuple[str, ...], expected: str) -> None:
    headers = tuple(DatasetHeader(name=n, units="1", attributes={"show": "first"} if n in said else {}) for n in "abcd")
    arrays = {name: np.full(6, level) for name, level in zip("abcd", (1.0, 2.0, 3.0, 9.0), strict=True)}
    assert opened_on(tmp_path, headers, arrays) == f"curves/{expected}"


def test_a_file_of_xrf_opens_on_an_element_and_not_on_the_scattered_beam(tmp_path: pathlib.Path) -> None:
    names = ("chi2", "sigma/Fe_K", "area/Scatter_Compton000", "area/Scatter_Peak000", "area/Fe_K", "area/Cu_K")
    arrays = {name: np.full(6, level) for name, level in zip(names, (1.0, 900.0, 800.0, 700.0, 50.0, 60.0), strict=True)}
    headers = checked(arrays, XRF.declared({}), 6)
    assert opened_on(tmp_path, headers, arrays) == "curves/area/Cu_K"
    live = LiveFile(tmp_path / "live.h5", product_of(), state_of(), result(headers, arrays))
    live.close()
    with h5py.File(tmp_path / "live.h5") as root:
        assert root["entry"].attrs["default"] == "maps/area/Fe_K"


def test_a_spectrum_lies_over_the_dataset_that_it_names(tmp_path: pathlib.Path) -> None:
    def once(name: str, **attributes: str) -> DatasetHeader:
        return DatasetHeader(name=name, units="1", per="scan", merge="first", attributes=attributes)

    headers = (once("sum", axis="axes/mass"), once("other"), once("long", axis="axes/mass"), once("axes/mass"), once("energy"))
    arrays = {one.name: np.arange(9.0 if one.name == "long" else 8.0) for one in headers}
    path = tmp_path / "r.h5"
    write_result(path, content(results=result(headers, arrays)))
    with h5py.File(path) as root:
        spectra = root["entry/spectra"]
        assert {name: list(spectra[name].attrs["axes"]) for name in spectra} == {
            "sum": ["mass"],
            "other": ["channel"],
            "long": ["channel"],
            "energy": ["channel"],
        }
        assert spectra["sum/mass"] == root["entry/data/axes/mass"]
