"""Ptychography as a beamline has it: Eiger files from the detector, positions from the encoders of another pipeline, one site."""

import pathlib

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from PIL import Image

from beamline_side.hosts.one_scan import run_scan
from beamtide.config.models import Deployment
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from beamtide.results import layout, reading
from tests.builders.sites import scaling_for, write_site
from tests.ptycho_scans import Truth, simulate
from tests.unit.test_ptycho_engines import against_truth

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(170)]
SIDE, DETECTOR = 8, 96
SCAN = Scan(id=ScanId("scan_00007"), shape=(SIDE, SIDE), axes=("scanv", "scanu"))
ENCODERS = {
    "modality": "encoders",
    "source": {"match": "{scan}/pilctriggergenerator_*/*.nxs", "format": "p06_pilc", "frames_per_task": "line"},
    "settings": {"axes": {"x": {"field": "encoder_3", "units": "um"}, "y": {"field": "encoder_2", "units": "um"}}},
}
PTYCHO = {
    "modality": "ptychography",
    "source": {"match": "{scan}/eiger_4m_01/*_data_*.h5", "format": "eiger", "frames_per_task": "scan"},
    "inputs": ["encoders/y", "encoders/x"],
    "calibration": {"probe": "probe.npy"},
    "write": ["hdf5", "tiff", "jpeg", "cxi"],
}


def detector_files(folder: pathlib.Path, frames: np.ndarray, per_file: int) -> None:
    """Write frames as an Eiger does: bitshuffle-LZ4, one chunk per frame, a few frames per file, gaps at the largest count."""
    folder.mkdir(parents=True)
    size = frames.shape[-1]
    first = (DETECTOR - size) // 2 + 5
    whole = np.zeros((len(frames), DETECTOR, DETECTOR), "u4")
    whole[:, first : first + size, first : first + size] = np.fft.fftshift(frames, axes=(1, 2))
    whole[:, :, 2] = 2**32 - 1
    for number, start in enumerate(range(0, len(whole), per_file), 1):
        block = whole[start : start + per_file]
        with h5py.File(folder / f"{SCAN.id}_data_{number:06d}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=block, chunks=(1, *block.shape[1:]), **hdf5plugin.Bitshuffle())


def encoder_files(folder: pathlib.Path, positions: np.ndarray) -> None:
    """Write positions (n, 2) in um, vertical first, one file per line."""
    folder.mkdir(parents=True)
    for row, line in enumerate(positions.reshape(-1, SIDE, 2)):
        with h5py.File(folder / f"{SCAN.id}_{row:05d}.nxs", "w") as file:
            for number, values in enumerate((0 * line[:, 0], line[:, 0], line[:, 1], 0 * line[:, 0]), 1):
                file[f"entry/data/encoder_{number}"] = values


def deployment_for(folder: pathlib.Path, truth: Truth, per_file: int) -> Deployment:
    detector_files(folder / "raw" / SCAN.id / "eiger_4m_01", truth.frames, per_file)
    encoder_files(folder / "raw" / SCAN.id / "pilctriggergenerator_04", 1e6 * truth.measured * truth.pixel)
    np.save(folder / "probe.npy", truth.start())
    centre = (DETECTOR - truth.frames.shape[-1]) // 2 + 5 + truth.frames.shape[-1] // 2
    settings = truth.settings(recipe="RAAR(0.85) 25 -> LSQML 10", device="cpu", probe={"kind": "former"})
    more = {"positions": ["encoders/y", "encoders/x"], "centre": [centre, centre], "crop": truth.frames.shape[-1]}
    pipelines = {"encoders": ENCODERS, "ptycho": PTYCHO | {"settings": settings | more}}
    return write_site(folder, pipelines, scaling=scaling_for(2, tick=0.2, idle_exit=3))


@pytest.mark.parametrize("per_file", [24, 64])
def test_eiger_frames_and_encoders_become_an_object(per_file: int, tmp_path: pathlib.Path) -> None:
    truth = simulate(side=SIDE)
    deployment = deployment_for(tmp_path, truth, per_file)
    outcome = run_scan(deployment, SCAN, lambda _: None)
    assert {name: (row.done, row.abandoned) for name, row in outcome.last.pipelines.items()} == {
        "encoders": (8, 0),
        "ptycho": (1, 0),
    }
    kept = reading.open(SCAN.id, processed=deployment.site.roots.processed)
    found = {name.removeprefix("ptycho/"): np.asarray(kept[name]) for name in kept if name.startswith("ptycho/")}
    assert against_truth(truth, found).crossing > 0.35
    assert str(found["quality/verdict"]) == "converged"
    assert outcome.last.pipelines["ptycho"].quality == "converged"
    used = np.stack([found["position_y_used"], found["position_x_used"]], axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(used, truth.measured * truth.pixel, atol=1e-12)
    folder = layout.scan_folder(deployment.site.roots.processed, SCAN.id)
    assert tifffile.imread(next(folder.rglob("*object_phase.tif*"))).shape == found["object_phase"].shape
    with h5py.File(next(folder.glob("*.cxi"))) as file:
        np.testing.assert_array_equal(file["entry_1/image_1/data"], found["object"])
    with Image.open(next(folder.rglob("*object_phase.jp*g"))) as picture:
        assert min(picture.size) >= min(found["object_phase"].shape)


def test_two_scans_that_are_stitched_become_one_object(tmp_path: pathlib.Path) -> None:
    """The upper half of the sample is one scan, the lower half another, measured with the same optics."""
    truth = simulate(side=SIDE)
    deployment = deployment_for(tmp_path, truth, 64)
    raw, half = deployment.site.roots.raw, len(truth.frames) // 2
    (raw / SCAN.id).rename(tmp_path / "unused")
    for scan, part in (("scan_00021", slice(0, half)), ("scan_00022", slice(half, None))):
        detector_files(raw / scan / "eiger_4m_01", truth.frames[part], 24)
        encoder_files(raw / scan / "pilctriggergenerator_04", 1e6 * truth.measured[part] * truth.pixel)
    both = Scan(id=ScanId("scan_00021+scan_00022"), shape=(SIDE, SIDE), axes=("scanv", "scanu"))
    outcome = run_scan(deployment, both, lambda _: None)
    assert {name: (row.done, row.abandoned) for name, row in outcome.last.pipelines.items()} == {
        "encoders": (8, 0),
        "ptycho": (1, 0),
    }
    kept = reading.open(both.id, processed=deployment.site.roots.processed)
    found = {name.removeprefix("ptycho/"): np.asarray(kept[name]) for name in kept if name.startswith("ptycho/")}
    assert against_truth(truth, found).crossing > 0.35
