"""`format: maps`: channel-first maps as the points of a scan; against a plain transposition by h5py."""

import pathlib
import tempfile
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.layout import laid_out
from beamtide.files.row import FileFact
from beamtide.files.ways import ScanPoints
from beamtide.formats.base import FileFormat, LostFrames, StatesUnits, Unfinished

MAPS: FileFormat = registry.find("formats", "maps")
PLAIN: FileFormat = registry.find("formats", "hdf5")
NAMES = ["US_IC", "DS_IC", "x_coord"]
EVERYTHING = {
    "spectra": "spectra",
    "i0": "scalers/US_IC",
    "x": "scalers/x_coord",
    "live": "Elapsed_Livetime",
    "dead_time_factor": "Input_Counts / Output_Counts",
}


def written(path: pathlib.Path, shape: tuple[int, int, int], *, new: bool = True, **how: Any) -> pathlib.Path:
    """Write a file as XRF-Maps does (`new`), or as its version 9 did; each value shows channel, row and column."""
    channels, rows, columns = shape
    spectra = np.arange(channels * rows * columns, dtype=np.float32).reshape(shape)
    with h5py.File(path, "w") as file:
        file.create_dataset("MAPS/Spectra/mca_arr" if new else "MAPS/mca_arr", data=spectra, **how)
        scalers = np.arange(len(NAMES) * rows * columns, dtype=np.float32).reshape(-1, rows, columns) + 0.5
        file["MAPS/Scalers/Values" if new else "MAPS/scalers"] = scalers
        file["MAPS/Scalers/Names" if new else "MAPS/scaler_names"] = np.array(NAMES, "S256")
        file["MAPS/Scalers/Units" if new else "MAPS/scaler_units"] = np.array(["counts", "", "mm"], "S256")
        for number, name in enumerate(("Elapsed_Livetime", "Input_Counts", "Output_Counts")):
            image = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns) * (number + 1) + number
            file.create_dataset(f"MAPS/Spectra/{name}", data=image, chunks=(rows, 1))
        if new:
            file["MAPS/mca_arr"] = file["MAPS/Spectra/mca_arr"]
    return path


def naive(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    with h5py.File(path, "r") as file:
        spectra = file["MAPS/mca_arr"][()]
        return {
            "spectra": spectra.transpose(1, 2, 0).reshape(-1, 1, len(spectra)),
            "i0": file["MAPS/Scalers/Values"][0].ravel(),
            "x": file["MAPS/Scalers/Values"][2].ravel(),
            "live": file["MAPS/Spectra/Elapsed_Livetime"][()].ravel(),
            "dead_time_factor": (file["MAPS/Spectra/Input_Counts"][()] / file["MAPS/Spectra/Output_Counts"][()]).ravel(),
        }


@given(st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)), st.data())
@settings(max_examples=120, deadline=None)
def test_points_are_those_of_a_transposed_array(shape: tuple[int, int, int], data: st.DataObject) -> None:
    chunks = data.draw(st.one_of(st.none(), st.just((shape[0], 1, 1)), st.tuples(*(st.integers(1, size) for size in shape))))
    how = {} if chunks is None else {"chunks": chunks, "compression": "gzip"}
    with tempfile.TemporaryDirectory() as folder:
        path = written(pathlib.Path(folder) / "2xfm_0001.h5", shape, **how)
        points = shape[1] * shape[2]
        assert MAPS.probe(path, EVERYTHING).frames == points
        assert MAPS.shape_of(path) == shape[1:]
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, points)] * 2)))
        found, expected = MAPS.read(path, first, last, EVERYTHING), naive(path)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array[first:last], strict=True) if name != "dead_time_factor" else (
                np.testing.assert_allclose(found[name], array[first:last], rtol=1e-6)
            )


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_points_that_were_never_written_are_missing_and_no_others(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    chunks = data.draw(st.sampled_from([(4, 1, 1), (2, 1, 1), (4, 1, columns), (3, rows, 1)]))
    there = data.draw(st.sets(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)), max_size=rows * columns))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.h5"
        with h5py.File(path, "w") as file:
            spectra = file.create_dataset("MAPS/Spectra/mca_arr", (4, rows, columns), np.float32, chunks=chunks)
            for row, column in there:
                spectra[:, row, column] = 1 + row * columns + column
            whole = spectra[0].ravel() != 0
            for row, column in np.ndindex(rows, columns):  # a chunk of several points was written with one of them
                whole[row * columns + column] = any(
                    row // chunks[1] == one // chunks[1] and column // chunks[2] == other // chunks[2] for one, other in there
                )
        lost = {index for one in MAPS.probe(path, {}).missing for index in range(one.first, one.last)}
        assert lost == set(np.flatnonzero(~whole).tolist())
        for index in range(rows * columns):
            if index in lost:
                with pytest.raises(LostFrames, match="never written"):
                    MAPS.read(path, index, index + 1, {})
            elif divmod(index, columns) in there:
                assert MAPS.read(path, index, index + 1, {})["spectra"].tolist() == [[[index + 1.0] * 4]]


def test_a_damaged_point_costs_only_itself(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "x.h5", (50, 3, 4), chunks=(50, 1, 1), compression="gzip")
    with h5py.File(path, "r") as file:
        info = file["MAPS/Spectra/mca_arr"].id.get_chunk_info_by_coord((0, 1, 2))
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = b"\xff" * info.size
    path.write_bytes(content)
    with pytest.raises(LostFrames, match=r"mca_arr, row 1, column 2 cannot be decompressed") as caught:
        MAPS.read(path, 0, 12, {})
    assert [(one.first, one.last) for one in caught.value.missing] == [(6, 7)]


def test_an_older_file_and_its_units(tmp_path: pathlib.Path) -> None:
    for new in (True, False):
        path = written(tmp_path / "x.h5", (5, 2, 3), new=new)
        assert MAPS.read(path, 4, 5, {})["spectra"].tolist() == [[[4, 10, 16, 22, 28]]]
        assert isinstance(MAPS, StatesUnits)
        assert MAPS.units(path, EVERYTHING) == {"i0": "counts", "x": "mm"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"i0": "scalers/nothing"}, r"there are 0 scalers 'nothing', only US_IC, DS_IC, x_coord"),
        ({"x": "x_axis"}, "there is no 'x_axis'; expected spectra, scalers/NAME"),
        ({"x": "mca_arr"}, r"mca_arr has shape \(5, 2, 3\) of float32, and not 2 axes"),
        ({"spectra": "spectra", "odd": "Odd"}, "do not have the same rows and columns: .*mca_arr 2 x 3.*Odd 2 x 2"),
    ],
)
def test_what_is_not_there_is_a_sentence(tmp_path: pathlib.Path, options: dict[str, str], sentence: str) -> None:
    path = written(tmp_path / "x.h5", (5, 2, 3))
    with h5py.File(path, "r+") as file:
        file["MAPS/Spectra/Odd"] = np.zeros((2, 2))
    with pytest.raises(BadInput, match=sentence) as caught:
        MAPS.probe(path, options)
    assert not isinstance(caught.value, Unfinished)


def test_fitted_maps_are_no_spectra(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec"] = np.zeros((3, 2, 2))
    with pytest.raises(BadInput, match=r"no spectra in /MAPS; this looks like a MAPS file \(XRF-Maps\) without spectra"):
        MAPS.probe(tmp_path / "x.h5", {})


def test_the_plain_format_does_not_take_channels_for_frames(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "x.h5", (8, 2, 3))
    with pytest.raises(BadInput, match=r"is 8 x 2 x 3, rows and columns of the map last; .*: use format: maps"):
        PLAIN.probe(path, {"spectra": "/MAPS/Spectra/mca_arr"})


@pytest.mark.parametrize("frames", [5, 2048])
@pytest.mark.parametrize("closed", [True, False])
def test_an_array_with_the_scan_last_is_refused_by_its_shape(frames: int, closed: bool) -> None:
    facts, scan = [FileFact("x.h5", frames, shape=(frames, 11, 13))], ScanPoints.of(143, (11, 13))
    found = laid_out(facts, scan, SourceConfig(match="{scan}.h5"), closed=closed)
    assert found.stop == (143 if closed else 0)
    assert all("this looks like channels first" in piece.trouble for piece in found.pieces)
    meant = SourceConfig(match="{scan}.h5", options={"point_axes": "1"})
    assert laid_out(facts, scan, meant, closed=True).pieces[0].path == "x.h5"


def test_images_of_the_size_of_the_scan_are_frames() -> None:
    facts = [FileFact("x.h5", 143, shape=(143, 11, 13))]
    found = laid_out(facts, ScanPoints.of(143, (11, 13)), SourceConfig(match="{scan}.h5"), closed=True)
    assert [(one.start, one.stop, one.path) for one in found.pieces] == [(0, 143, "x.h5")]
