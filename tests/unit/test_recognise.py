"""What a file looks like that a format did not understand; and that files which may still become whole are never named so."""

import pathlib
import tempfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.layout import laid_out
from beamtide.files.watch import FileWatch
from beamtide.files.ways import ScanPoints
from beamtide.formats import recognise
from beamtide.formats.base import FileFormat, Unfinished
from tests.unit.test_fabio_format import IMAGES, cbf, edf, tiff
from tests.unit.test_maps_format import written

BYTES = {
    "a CBF image: use format: fabio": cbf(IMAGES[:1]),
    "a TIFF image: use format: fabio": tiff(IMAGES),
    "a MarCCD image: use format: fabio": b"II*\0\x08\0\0\0".ljust(1024, b"\0") + b"\x02\0\0\0MMX\0".ljust(3072, b"\0"),
    "an EDF image: use format: fabio": edf(IMAGES),
    "a capture of a PandABox: use format: panda": b"arm_time: 2023-01-01T00:00:00Z\nmissed: 0\n",
    "a SPEC file": b"#F /data/x.spec\n#E 1145450191\n#S 1 ascan x 0 1 10 1\n",
    "a NumPy array": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', ...",
    "a zip archive": b"PK\x03\x04\x14\0\0\0",
    "compressed with gzip: unpack it": b"\x1f\x8b\x08\0",
    "a Git LFS pointer and not the file itself: git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n",
    "an HTML page, such as an error in place of a download": b"<!DOCTYPE html>\n<html><body>403 Forbidden",
    "text in columns": b"x y z\n1.0 2.0 3.5\n2.0 3e-5 -4\n",
    "a text file": b"not what you look for\n" * 5,
}
GROUPS = {
    "a MAPS file (XRF-Maps), channels first: use format: maps": ("MAPS/Spectra/mca_arr", (5, 2, 2)),
    "a file of an Xspress3 at NanoMAX: use format: nanomax_xspress3": ("entry/instrument/xspress3/data", (3, 4, 8)),
    "the master file of an Eiger: use format: eiger": ("entry/data/data_000001", (3, 4, 4)),
    "a CXI file: use format: cxi": ("entry_1/data_1/data", (3, 4, 4)),
    "a .ptyd file of ptypy: use format: ptyd": ("chunks/0/data", (3, 4, 4)),
    "an HDF5 file of a PandABox: use format: panda": ("COUNTER1.OUT.Mean", (7,)),
    "a Data Exchange file": ("exchange/data", (3, 4, 4)),
}


@pytest.mark.parametrize(("phrase", "content"), BYTES.items(), ids=list(BYTES))
def test_files_of_other_kinds_are_named_by_each_hdf5_format(tmp_path: pathlib.Path, phrase: str, content: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    for name in ("hdf5", "eiger", "maps", "cxi", "p06_pilc"):
        known: FileFormat = registry.find("formats", name)
        with pytest.raises(BadInput, match="is no HDF5 file") as caught:
            known.probe(path, {"frames": "/data"} if name in ("hdf5", "eiger") else {})
        assert phrase in str(caught.value)
        assert not isinstance(caught.value, Unfinished)
        assert "still being written" not in str(caught.value)


@pytest.mark.parametrize(("phrase", "place"), GROUPS.items(), ids=list(GROUPS))
def test_hdf5_files_of_other_layouts_are_named(tmp_path: pathlib.Path, phrase: str, place: tuple[str, tuple[int, ...]]) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file[place[0]] = np.zeros(place[1])
    with pytest.raises(BadInput, match="there is no dataset /wrong") as caught:
        registry.find("formats", "hdf5").probe(path, {"frames": "/wrong"})
    assert phrase in str(caught.value)
    with pytest.raises(BadInput, match="this looks like"):
        registry.find("formats", "fabio").probe(path, {})


def test_a_layout_that_nobody_knows_lists_what_there_is(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/images"], file["a/name"], file["clock"] = np.zeros((3, 4, 5)), "text", np.zeros(3)
    with pytest.raises(BadInput, match=r"; datasets in it are /clock 3, /a/images 3x4x5$"):
        registry.find("formats", "hdf5").probe(path, {"frames": "/wrong"})


def test_measured_files_are_named(test_data: pathlib.Path) -> None:
    looks = {
        "xrd/lambda_p02/testasapo1_1009_00002_m1_part00000.nxs": "a file of a Lambda detector: use format: lambda",
        "positions/nanomax_000008.h5": "the positions file of NanoMAX: use format: nanomax_panda",
        "xrf/nanomax_scan_000008_xspress3.hdf5": "a file of an Xspress3 at NanoMAX: use format: nanomax_xspress3",
        "xrd/CeO2_Pilatus1M.tif": "a TIFF image: use format: fabio",
    }
    assert {name: str(recognise.look(test_data / name)) for name in looks} == {
        name: f"this looks like {what}" for name, what in looks.items()
    }


def test_each_format_that_is_advised_is_installed() -> None:
    advised = [look.advice for look in (*(look for _, look in recognise.STARTS), *(look for _, look in recognise.GROUPS))]
    named = {text.removeprefix("use format: ").partition(",")[0] for text in advised if text.startswith("use format: ")}
    assert len(named) > 5
    assert named <= set(registry.names("formats"))


@given(st.floats(0, 1, exclude_max=True), st.booleans(), st.sampled_from(["earliest", "latest"]))
@settings(max_examples=80, deadline=None)
def test_an_hdf5_file_that_is_not_whole_yet_is_never_another_kind(part: float, zeros: bool, version: str) -> None:
    """A file grows from its beginning, or was laid out as zeros that are filled in."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.h5"
        with h5py.File(path, "w", libver=version) as file:
            file.create_dataset("entry/data", data=np.arange(3000).reshape(30, 10, 10), chunks=(1, 10, 10), compression="gzip")
        content = path.read_bytes()
        size = int(part * len(content))
        path.write_bytes(bytes(size) + content[size:] if zeros and size >= 8 else content[:size])
        with pytest.raises(Unfinished):
            registry.find("formats", "hdf5").probe(path, {"frames": "/entry/data"})


def test_what_no_waiting_helps_is_said_while_the_scan_runs_and_is_the_hole_when_it_is_over(tmp_path: pathlib.Path) -> None:
    written(tmp_path / "scan_1_0.h5", (4, 2, 2))
    (tmp_path / "scan_1_1.h5").write_bytes(b"<html>404</html>")
    (tmp_path / "scan_1_2.h5").write_bytes(b"")
    source = SourceConfig(match="{scan}_*.h5", format="maps", frames_per_file=4, first=0)
    watch = FileWatch(tmp_path.resolve(), "scan_1", source)
    facts, scan = watch.look(0.0), ScanPoints.of(12, (3, 4))
    assert [fact.wrong for fact in facts] == [False, True, False]
    assert "scan_1_1.h5 is no HDF5 file" in watch.why()
    assert laid_out(facts, scan, source, closed=False).stop == 4
    over = laid_out(facts, scan, source, closed=True).pieces
    assert [(one.start, one.stop, bool(one.path)) for one in over] == [(0, 4, True), (4, 12, False)]
    assert "this looks like an HTML page" in over[1].trouble
