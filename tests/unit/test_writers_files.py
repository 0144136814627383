"""Result files: correct NeXus that explains itself, there as a whole or not at all."""

import pathlib
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import silx.io
import silx.io.nxdata

from beamline_side.writers import atomic, rows
from beamline_side.writers.files import ProductFiles, stem_of
from beamline_side.writers.hdf5 import LiveFile
from beamline_side.writers.nexus import write_result
from beamline_side.writers.written import unwritten
from beamtide.errors import BadInput
from beamtide.messages.results import DatasetHeader
from tests.writer_scans import SETTINGS, content, line, lost, product_of, state_of

HERE = pathlib.Path(sys.executable).parent


@pytest.fixture
def result(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "xrf.h5"
    write_result(path, content())
    return path


def errors_of(path: pathlib.Path) -> str:
    """What nxcheck says; it does not look into collections, so every NXdata is put right below the entry for it."""
    drawn: list[str] = []
    with h5py.File(path, "r") as root, h5py.File(path.with_name("flat.h5"), "w") as flat:
        root.visititems(lambda name, item: drawn.append(name) if item.attrs.get("NX_class") == "NXdata" else None)
        root.copy("entry", flat)
        for name in drawn:
            root.copy(name, flat["entry"], name=name.replace("/", "_"))
    return checked(path) + checked(path.with_name("flat.h5"))


def checked(path: pathlib.Path) -> str:
    done = subprocess.run([HERE / "nxcheck", "-e", path], capture_output=True, text=True, check=True)
    return done.stdout


def test_nexus_validator_finds_no_error(result: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert errors_of(result).count("Total number of errors: 0") == 2
    with h5py.File(result, "r+") as root:
        del root["entry/maps/area/Fe_K/x"]
        root["entry/maps/area/Fe_K/x"] = np.arange(4.0)
    assert errors_of(result).count("Total number of errors: 0") == 1


def test_silx_opens_on_the_strongest_map(result: pathlib.Path) -> None:
    with silx.io.open(str(result)) as root:
        plot = silx.io.nxdata.get_default(root, validate=False)
        assert plot.is_valid
        assert plot.is_image
        assert plot.group.name == "/entry/maps/area/Fe_K"
        assert plot.axes_dataset_names == ["y", "x"]


def test_values_stand_at_their_index_and_holes_are_nan(result: pathlib.Path) -> None:
    with h5py.File(result, "r") as root:
        iron = root["entry/data/area/Fe_K"][()]
        assert iron[:12].tolist() == list(range(12))
        assert np.isnan(iron[12:18]).all()
        drawn = root["entry/maps/area/Fe_K/data"][()]
        assert drawn[1].tolist() == [11, 10, 9, 8, 7, 6]
        assert np.isnan(drawn[2]).all()
        assert np.isnan(root["entry/maps/frames/data"][2]).all()
        assert root["entry/data/spectra"].shape == (24, 8)
        assert root["entry/spectra/sum_spectrum/data"][()].tolist() == [18.0] * 8
        assert root["entry/spectra/sum_spectrum"].attrs["axes"].tolist() == ["energy"]


def test_every_number_has_units_and_every_group_a_class(result: pathlib.Path) -> None:
    naked: list[str] = []

    def look(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Group) and "NX_class" not in item.attrs:
            naked.append(name)
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "iufc" and "units" not in item.attrs:
            naked.append(name)

    with h5py.File(result, "r") as root:
        root.visititems(look)
    assert [name for name in naked if not name.endswith("/data") or "process" not in name] == []


def test_the_file_says_how_it_was_made(result: pathlib.Path) -> None:
    with h5py.File(result, "r") as root:
        process = root["entry/process"]
        assert '"Fe"' in process["settings/data"].asstr()[()]
        assert process["settings"].attrs["digest"] == SETTINGS
        assert process["calibration_fit_cfg/data"].asstr()[()] == "[peaks]\nFe = K\n"
        assert process["calibration_mask/data"][()].tobytes() == b"\x00\xff\x80"
        assert '"PyMca5": "5.9.7"' in process["versions/data"].asstr()[()]
        assert process["tasks/host"].asstr()[()].tolist() == ["node1", "node1", "", "node1"]
        assert process["tasks/outcome"].asstr()[2] == "abandoned"
        assert root["entry/holes/reason"].asstr()[()].tolist() == ["frame file broken"]
        assert (root["entry/holes/start"][0], root["entry/holes/stop"][0]) == (12, 18)
        assert root["entry/inputs/path"].asstr()[0] == "scan_1/0.h5"


def test_a_line_scan_becomes_a_curve_and_nothing_becomes_no_plot(tmp_path: pathlib.Path) -> None:
    write_result(tmp_path / "line.h5", content(results=[line(0)], scan=state_of(rows=1), positions=None))
    write_result(tmp_path / "empty.h5", content(results=[lost(number, "no beam") for number in range(4)]))
    with silx.io.open(str(tmp_path / "line.h5")) as root:
        plot = silx.io.nxdata.get_default(root, validate=False)
        assert plot.is_valid
        assert plot.is_curve
    with h5py.File(tmp_path / "empty.h5") as root:
        assert root["entry/holes/stop"][()].tolist() == [24]
    assert errors_of(tmp_path / "line.h5").count("Total number of errors: 0") == 2
    assert errors_of(tmp_path / "empty.h5").count("Total number of errors: 0") == 2


def test_rows_that_do_not_fit_their_task_are_refused(tmp_path: pathlib.Path) -> None:
    request, arrays = line(0)
    with pytest.raises(BadInput, match="one row per index"):
        write_result(tmp_path / "xrf.h5", content(results=[(request, arrays | {"area/Fe_K": np.zeros(5)})]))


def test_other_settings_lie_beside_the_first_and_a_finished_file_is_recognised(tmp_path: pathlib.Path) -> None:
    scan, first, second = state_of(), product_of(), product_of("cd" * 32)
    for product in (first, second):
        files = ProductFiles(tmp_path, product, scan, ("hdf5",))
        assert unwritten(tmp_path, product, scan, ("hdf5",)) == {"hdf5": ""}
        results = [line(number, product=product) for number in range(4)]
        assert files.write(content(product=product, results=results)).result.exists()
        assert unwritten(tmp_path, product, scan, ("hdf5",)) == {}
    assert stem_of(tmp_path, first).name == "xrf"
    assert stem_of(tmp_path, second).name == "xrf.cdcdcdcd"
    assert unwritten(tmp_path, first, state_of(rows=5), ("hdf5",)) == {"hdf5": ""}
    records = {".xrf.written.json", ".xrf.cdcdcdcd.written.json"}
    assert {path.name for path in (tmp_path / "beamtide/scan_1").iterdir() if path.name.startswith(".")} == records


FULL = """
import os, pathlib, resource, signal, sys
from beamline_side.writers.files import ProductFiles
from beamtide.errors import Broken
from tests.writer_scans import content, line, product_of, state_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
files = ProductFiles(pathlib.Path(sys.argv[1]), product_of(), state_of(), ("hdf5", "tiff"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    files.write(content()) if sys.argv[3] == "final" else files.append([line(0)], 6)
except Broken as error:
    print(error, flush=True)
files.drop()
os._exit(75)
"""


@pytest.mark.parametrize(("kind", "size"), [("final", 100), ("final", 20_000), ("live", 100), ("live", 5_000)])
def test_a_full_disk_leaves_nothing_under_the_final_name(tmp_path: pathlib.Path, kind: str, size: int) -> None:
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", FULL, str(tmp_path), str(size), kind]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert "could not be written: File too large. Free space there; nothing is lost." in done.stdout, done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size] == []
    assert unwritten(tmp_path, product_of(), state_of(), ("hdf5",)) == {"hdf5": ""}
    assert ProductFiles(tmp_path, product_of(), state_of(), ("hdf5",)).write(content()).result.exists()


def test_a_nearly_full_disk_is_noticed_before_hdf5_is(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: .* MiB are free, .* MiB are needed"):
        atomic.ensure_room(tmp_path, 1 << 62)


def test_an_exception_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as part:
        print(part.write_text("new") / 0)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]


READER = """
import h5py, sys
with h5py.File(sys.argv[1], "r", swmr=True) as root:
    for question in sys.stdin:
        for name in ("complete", "data/area/Fe_K", "maps/area/Fe_K/data"):
            root["entry/" + name].refresh()
        done = int(root["entry/complete"][()])
        rows = root["entry/data/area/Fe_K"][:done].tolist()
        print(done, rows == list(range(done)), root["entry/maps/area/Fe_K/data"][1].tolist()[::-1], flush=True)
"""


def test_another_process_reads_the_file_while_it_grows(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "xrf.live.h5"
    live = LiveFile(path, product_of(), state_of(), [line(0)])
    live.append([line(0)], 6)
    with subprocess.Popen(
        [sys.executable, "-c", READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None

        def seen() -> str:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("?\n")
            reader.stdin.flush()
            return reader.stdout.readline()

        assert seen() == "6 True [nan, nan, nan, nan, nan, nan]\n"
        request, arrays = line(1)
        late = DatasetHeader(name="late", units="1")
        extended = type(request)(task=request.task, attempt=1, outcome="result", datasets=(*request.datasets, late))
        live.append([(extended, arrays | {"late": np.zeros(6)})], 12)
        assert seen() == "12 True [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]\n"
        reader.stdin.close()
    assert "late" not in live._file["entry/data"]
    live.drop()
    assert not path.exists()


def test_silx_shows_the_growing_map(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "xrf.live.h5"
    live = LiveFile(path, product_of(), state_of(), [line(0)])
    live.append([line(0), line(1)], 12)
    code = (
        "import sys, silx.io, silx.io.nxdata as n\n"
        "with silx.io.open(sys.argv[1]) as r: d = n.get_default(r, validate=False); print(d.is_valid, d.is_image)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
    live.drop()


def test_a_killed_writer_leaves_a_readable_live_file_and_the_next_one_begins_anew(tmp_path: pathlib.Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from beamline_side.writers.files import ProductFiles\n"
        "from tests.writer_scans import line, product_of, state_of\n"
        "files = ProductFiles(pathlib.Path(sys.argv[1]), product_of(), state_of(), ('hdf5',))\n"
        "files.append([line(0), line(1)], 12)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=root, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    files = ProductFiles(tmp_path, product_of(), state_of(), ("hdf5",))
    with h5py.File(files.live, "r", swmr=True) as root_group:
        assert root_group["entry/complete"][()] == 12
        assert root_group["entry/data/area/Fe_K"][11] == 11
    files.append([line(0)], 6)
    with h5py.File(files.live, "r", swmr=True) as root_group:
        assert root_group["entry/complete"][()] == 6
    files.drop()
    assert not list((tmp_path / "beamtide/scan_1").iterdir())


KILLED = """
import os, pathlib, signal, sys
from beamline_side.writers.files import ProductFiles
from tests.writer_scans import content, line, product_of, state_of
def results():
    yield line(0)
    os.kill(os.getpid(), signal.SIGKILL)
ProductFiles(pathlib.Path(sys.argv[1]), product_of(), state_of(), ("hdf5",)).write(content(results=results()))
"""


def test_a_writer_killed_in_the_middle_of_the_final_file_leaves_only_a_hidden_one(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=root, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / "beamtide/scan_1"
    assert [path.name for path in folder.iterdir()] == [".draft-xrf.h5"]
    ProductFiles(tmp_path, product_of(), state_of(), ("hdf5",)).write(content())
    assert sorted(path.name for path in folder.iterdir()) == [".xrf.written.json", "xrf.h5"]


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f4", "f8", "c8", "c16"])
def test_rows_of_every_kind_of_number_are_kept_and_floating_ones_have_holes(tmp_path: pathlib.Path, dtype: str) -> None:
    array = np.array([0, 1, 1], dtype)
    header = DatasetHeader(name="counts", units="counts", per="index", merge="rows")
    with h5py.File(tmp_path / "rows.h5", "w") as root:
        table = rows.dataset(root, header, array, 5)
        rows.put(table, 0, array)
        assert (table[:3] == array).all()
        assert np.isnan(table[3:]).all() if array.dtype.kind in "fc" else not table[3:].any()
