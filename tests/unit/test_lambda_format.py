"""Files of a Lambda detector: modules apart, parts of a scan one after the other; measured ones from PETRA III."""

import os
import pathlib

import h5py
import numpy as np
import pytest

from beamline_side.cores.task_plan import FileFact
from beamtide import registry
from beamtide.config.models import Roots, SourceConfig
from beamtide.errors import BadInput
from beamtide.files.watch import FileWatch
from beamtide.formats.base import Unfinished
from beamtide.formats.lambda_modules import DATA
from beamtide.formats.lazy import joined
from cluster_side.modalities.base import run
from cluster_side.worker.task import inputs
from tests.builders.tasks import make_input, make_task

FORMAT = registry.find("formats", "lambda")
MODULES = dict.fromkeys(("m1", "m2", "m3"), DATA)
PLACES = {"m1": (0, 2), "m2": (660, 0), "m3": (1317, 0)}
"""Row and column of each module: entry/instrument/detector/translation/distance of their files, in pixels."""


def write(folder: pathlib.Path, lengths: dict[str, int]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, length) in enumerate(lengths.items()):
        with h5py.File(folder / f"scan_{name}_part00000.nxs", "w") as file:
            data = np.arange(length * 6, dtype="i2").reshape(length, 2, 3) + 100 * number
            file.create_dataset(DATA, data=data, chunks=(1, 2, 3), compression="gzip")
    return folder / "scan_m1_part00000.nxs"


def test_a_file_brings_its_neighbours(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, {"m1": 5, "m2": 5, "m3": 5})
    assert FORMAT.probe(path, MODULES).frames == 5
    found = FORMAT.read(path, 1, 3, MODULES)
    assert {name: frames[0, 0, 0] for name, frames in ((name, np.asarray(one)) for name, one in found.items())} == {
        "m1": 6,
        "m2": 106,
        "m3": 206,
    }
    assert FORMAT.read(path, 0, 5, {}).keys() == {"m1"}, "without options its own module only"


def test_the_source_waits_for_all_modules_and_looks_into_each(tmp_path: pathlib.Path) -> None:
    source = SourceConfig(match="*_m1_part*.nxs", format="lambda", options=MODULES)
    path = write(tmp_path, {"m1": 5, "m2": 5, "m3": 4})
    watch = FileWatch(tmp_path, "scan", source)
    assert "module m3 has 4 frames, m1 has 5" in watch.look(0.0)[0].trouble
    write(tmp_path, {"m1": 5, "m2": 5, "m3": 5})
    os.utime(path, (1, 1))
    assert watch.look(1.0) == [FileFact(path.name, 5)]
    with h5py.File(path.with_name("scan_m2_part00000.nxs"), "w") as file:
        file[DATA] = h5py.ExternalLink("/etc/passwd", "x")
    os.utime(path, (2, 2))
    assert "a task may only read below it" in watch.look(2.0)[0].trouble


def test_what_is_missing_or_no_module_is_told(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, {"m1": 5, "m2": 5})
    with pytest.raises(Unfinished, match=r"scan_m3_part00000\.nxs, is not there"):
        FORMAT.probe(path, MODULES)
    with pytest.raises(BadInput, match="'frames' is no module"):
        FORMAT.probe(path, {"frames": DATA})
    with pytest.raises(BadInput, match="has no _m1_"):
        FORMAT.probe(tmp_path / "scan.nxs", {})


@pytest.mark.parametrize("way", ["symlink", "external"])
def test_a_neighbour_that_leads_outside_is_refused(way: str, tmp_path: pathlib.Path) -> None:
    roots = Roots(raw=tmp_path / "raw", processed=tmp_path)
    path = write(roots.raw, {"m1": 2, "m2": 2})
    neighbour, secret = roots.raw / "scan_m2_part00000.nxs", tmp_path / "secret.h5"
    neighbour.rename(secret)
    if way == "symlink":
        neighbour.symlink_to(secret)
    else:
        with h5py.File(neighbour, "w") as file:
            file[DATA] = h5py.ExternalLink(str(secret), DATA)
    both = {"m1": DATA, "m2": DATA}
    wanted = make_input(path.name, last=2, format="lambda", options=both)
    task = make_task(stop=2, inputs=(wanted,))
    with pytest.raises(BadInput, match="a task may only read below it"):
        inputs.read_files(task, roots)


@pytest.mark.long
def test_measured_frames_are_integrated_in_their_order(test_data: pathlib.Path) -> None:
    """Against Dioptas' result, which takes the first frame of each file twice and leaves its last one out; it has no mask."""
    folder = test_data / "xrd" / "lambda_p02"
    with h5py.File(folder / "testasapo1_1009_00002_proc.nxs") as file:
        theirs, angles = file["processed/result/data"][:20], file["processed/result/binning"][()]
    parts = [FORMAT.read(path, 0, 10, MODULES) for path in sorted(folder.glob("*_m1_part0000[01].nxs"))]
    step = float(angles[1] - angles[0])
    settings = {
        "panels": PLACES,
        "shape": (1833, 1556),
        "orientation": 2,
        "unit": "2th_deg",
        "points": len(angles),
        "radial_range": (float(angles[0]) - step / 2, float(angles[-1]) + step / 2),
    }
    frames = {name: joined([part[name] for part in parts]) for name in MODULES}
    ours = run(registry.find("modalities", "xrd"), frames, settings, {"poni": folder / "L2.poni"})["azint1d/I"]
    for at, pattern in enumerate(theirs):
        frame = at - (at % 10 > 0)
        there = np.isfinite(ours[frame])  # theirs is 0 where a ring lies between the modules
        assert there.mean() > 0.99
        assert np.corrcoef(ours[frame, there], pattern[there])[0, 1] > 0.99, f"frame {frame}"
