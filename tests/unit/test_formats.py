"""File formats: what is complete is read, what is not says so in one sentence."""

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import h5py
import numpy as np
import pytest

from beamtide import registry
from beamtide.config import site
from beamtide.errors import BadInput
from beamtide.formats.base import FileFormat, Unfinished
from beamtide.formats.p06 import dead_time_factor
from beamtide.formats.scan_command import points_of

PLAIN: FileFormat = registry.find("formats", "hdf5")
OPTIONS = {"spectra": "/entry/data/data", "clock": "entry/clock"}
WRITER = """
import h5py, sys
with h5py.File(sys.argv[1], "w") as file:
    file["entry/data/data"] = [[1, 2]]
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def plain(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.arange(60).reshape(10, 2, 3)
        file["entry/clock"] = np.arange(10)
        file["entry/short"] = np.arange(7)
        file["entry/scalar"] = 3
    return path


def test_probe_and_read_of_a_slice(plain: pathlib.Path) -> None:
    assert PLAIN.probe(plain, OPTIONS).frames == 10
    found = PLAIN.read(plain, 4, 6, OPTIONS)
    np.testing.assert_array_equal(found["spectra"], np.arange(60).reshape(10, 2, 3)[4:6])
    np.testing.assert_array_equal(found["clock"], [4, 5])
    assert PLAIN.shape_of(plain) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spectra": "/entry/data/dta"}, r"plain\.h5: there is no dataset /entry/data/dta; /entry/data holds data; correct"),
        ({"spectra": "/entry/data"}, "there is no dataset /entry/data; /entry/data holds data"),
        ({"spectra": "entry/clock/x"}, "there is no dataset entry/clock/x; /entry holds clock, data, scalar, short"),
        ({"spectra": "entry/scalar"}, "single value"),
        ({"spectra": "entry/clock", "b": "entry/short"}, "/entry/clock has 10 frames but /entry/short has 7"),
        ({}, "source.options is empty"),
    ],
)
def test_a_file_that_is_not_what_was_configured(plain: pathlib.Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        PLAIN.probe(plain, options)
    assert not isinstance(caught.value, Unfinished)


def test_frames_beyond_the_end_are_refused(plain: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="frames 8 to 12 were asked for, but it holds 10"):
        PLAIN.read(plain, 8, 12, OPTIONS)


def test_a_missing_file_is_unfinished(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Unfinished, match="is not there"):
        PLAIN.probe(tmp_path / "no.h5", OPTIONS)


@pytest.fixture
def writer(tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, "subprocess.Popen[str]"]]:
    """Another process that holds a file open for writing until its standard input closes."""
    path = tmp_path / "held.h5"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield path, process
        process.kill()


def test_a_file_that_its_writer_still_holds_is_unfinished_until_it_is_closed(
    writer: tuple[pathlib.Path, "subprocess.Popen[str]"],
) -> None:
    path, process = writer
    with pytest.raises(Unfinished, match="still being written"):
        PLAIN.probe(path, {"spectra": "/entry/data/data"})
    process.communicate(timeout=20)
    assert PLAIN.probe(path, {"spectra": "/entry/data/data"}).frames == 1


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_a_truncated_measured_file_is_unfinished(test_data: pathlib.Path, tmp_path: pathlib.Path, part: float) -> None:
    whole = (test_data / "positions" / "nanomax_000008.h5").read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: int(len(whole) * part)])
    panda: FileFormat = registry.find("formats", "nanomax_panda")
    with pytest.raises(Unfinished, match="still being written, or damaged"):
        panda.read(cut, 0, 101, {})
    assert panda.shape_of(cut) is None


def test_files_of_nanomax(test_data: pathlib.Path) -> None:
    panda: FileFormat = registry.find("formats", "nanomax_panda")
    positions = test_data / "positions" / "nanomax_000008.h5"
    assert panda.probe(positions, {}).frames == 1111
    assert panda.shape_of(positions) == (11, 101)
    assert {"INENC1.VAL_Mean", "INENC2.VAL_Mean", "INENC3.VAL_Mean", "alba2/1", "alba2/4"} <= panda.read(
        positions, 0, 1, {}
    ).keys()
    xspress3: FileFormat = registry.find("formats", "nanomax_xspress3")
    found = xspress3.read(test_data / "xrf" / "nanomax_scan_000008_xspress3.hdf5", 100, 102, {})
    assert found["spectra"].shape == (2, 4, 4096)
    assert found["dead_time_factor"].shape == (2, 4)
    with pytest.raises(BadInput, match="positions file of the scan"):
        panda.probe(test_data / "xrf" / "nanomax_scan_000008_xspress3.hdf5", {})


def p06_file(folder: pathlib.Path, channels: tuple[int, ...]) -> pathlib.Path:
    path = folder / "raw" / "scan_00042" / "xspress3_01" / "scan_00042_00000.nxs"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for number, width in enumerate(channels):
            where = f"entry/instrument/xspress3/channel{number:02d}"
            file[f"{where}/histogram"] = np.full((3, width), number, "u4")
            file[f"{where}/scaler/totalticks"] = np.array([800, 800, 0], "u4")
            file[f"{where}/scaler/deadtimeticks"] = np.array([400, 800, 0], "u4")
    return path


def test_files_of_p06(tmp_path: pathlib.Path) -> None:
    path = p06_file(tmp_path, (8, 8))
    xspress3: FileFormat = registry.find("formats", "p06_xspress3")
    assert xspress3.probe(path, {}).frames == 3
    found = xspress3.read(path, 0, 3, {})
    assert found["spectra"].shape == (3, 2, 8)
    np.testing.assert_array_equal(found["spectra"][:, 1], 1)
    np.testing.assert_array_equal(found["dead_time_factor"][:, 0], [2.0, np.nan, 1.0])
    assert xspress3.shape_of(path) is None
    master = tmp_path / "raw" / "scan_00042.nxs"
    with h5py.File(master, "w") as file:
        file["scan/program_name"] = "NexDaTaS"
        file["scan/program_name"].attrs["scan_command"] = "dmesh scany 0 1.5 3 scanx 0 2.5 5 0.01"
    assert xspress3.shape_of(path) == xspress3.shape_of(master) == (4, 6)


def test_detector_elements_of_different_width_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match=r"channel01/histogram has spectra of shape \(9,\)"):
        registry.find("formats", "p06_xspress3").probe(p06_file(tmp_path, (8, 9)), {})


def test_the_other_formats_of_p06_name_what_is_missing(plain: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="is this a file of an Xspress3"):
        registry.find("formats", "p06_xspress3").probe(plain, {})
    with pytest.raises(BadInput, match="no dataset /entry/data/encoder_1"):
        registry.find("formats", "p06_pilc").probe(plain, {})


def test_dead_time_does_not_wrap_around_in_unsigned_counters() -> None:
    total, dead = np.array([[10]], "u4"), np.array([[12]], "u4")
    assert np.isnan(dead_time_factor(total=total, dead=dead)).all()


@pytest.mark.parametrize(
    ("command", "points"),
    [
        ("npointflyscan sx -15 5 100 sy -10 10 10 0.05", (101, 11)),
        ("dmesh scany 0 1.5 3 scanx 0 2.5 5 0.01", (4, 6)),
        ("dscan samx -1e-3 1 20 0.1", (21,)),
        ("ct 1.0", None),
        ("", None),
    ],
)
def test_points_of_a_scan_command(command: str, points: tuple[int, ...] | None) -> None:
    assert points_of(command) == points


def test_the_example_site_is_right(test_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    example = pathlib.Path(__file__).parents[2] / "examples" / "nanomax"
    for name in ("site", "encoders", "xrf"):
        text = (example / f"{name}.yaml").read_text()
        text = text.replace("raw: raw", f"raw: {test_data}").replace("shared: shared", f"shared: {test_data / 'xrf'}")
        (tmp_path / f"{name}.yaml").write_text(text)
    assert site.check(tmp_path / "site.yaml") == []
    for pipeline in site.load(tmp_path / "site.yaml").pipelines.values():
        fmt: FileFormat = registry.find("formats", pipeline.source.format)
        assert fmt.probe(test_data / pipeline.source.match, pipeline.source.options).frames == 1111
