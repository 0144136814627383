"""Scans for the benchmark of the whole job: their raw files, made on the spot, and the site that processes them."""

import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import h5py
import hdf5plugin
import numpy as np

from beamline_side.simulation import beamline
from beamtide.messages.base import ScanId
from beamtide.messages.metadata import Scan
from benchmarks.xrd import PONI, SHAPE

ID = "scan_00001"
SITE = """
site: whole
roots: {raw: ../raw, processed: ../processed}
state: ../state
pipelines: [%s]
scaling: {caps: {jobs: 2, node_hours_per_day: 24}}
"""
ENCODERS = """
pipeline: encoders
modality: encoders
source: {match: "{scan}/pilctriggergenerator_*/*.nxs", format: p06_pilc}
settings: {axes: {x: {field: encoder_3, units: um}, y: {field: encoder_2, units: um}}}
write: [hdf5]
"""
XRF = """
pipeline: xrf
modality: xrf
source: {match: "{scan}/xspress3_*/*.nxs", format: p06_xspress3}
settings: {detectors: all, dead_time: true}
calibration: {cfg: sample.cfg}
positions: encoders
write: [hdf5, tiff, jpeg]
"""
XRD = """
pipeline: xrd
modality: xrd
source: {match: "{scan}/*_data_*.h5", format: eiger}
settings: {shape: [2167, 2070], orientation: 3, points: 1000}
calibration: {poni: detector.poni}
write: [hdf5, tiff, jpeg]
"""
POSITIONS = """
pipeline: positions
modality: encoders
source: {match: "{scan}/*.h5", format: hdf5, options: {u: u, v: v}}
settings: {axes: {x: {field: u, units: um, resolution: 0.001}, y: {field: v, units: um, resolution: 0.001}}}
write: [hdf5]
"""
COUNTERS = """
pipeline: counters
modality: counters
source: {match: "{scan}/*.h5", format: hdf5, options: {i0: i0, diode: diode}}
settings:
  exposure: 0.001
  counters:
    i0: {field: i0, units: 1/s, dark: 2, rate: true}
    diode: {field: diode, units: 1/s, dark: 0, rate: true}
positions: positions
write: [hdf5, tiff, jpeg]
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One scan: the name of its metric, its shape (slow, fast), who makes its files, its pipelines and the script beside it."""

    metric: str
    shape: tuple[int, int]
    make: Callable[[pathlib.Path, tuple[int, int]], None]
    pipelines: dict[str, str]
    script: str
    results: str
    """The pipeline whose maps are wanted."""
    calibration: str = "-"

    def install(self, folder: pathlib.Path) -> None:
        """Write raw files and a site below a folder."""
        (folder / "raw").mkdir(parents=True)
        (folder / "site").mkdir()
        self.make(folder / "raw", self.shape)
        (folder / "site" / "site.yaml").write_text(SITE % ", ".join(f"{name}.yaml" for name in self.pipelines))
        for name, text in self.pipelines.items():
            (folder / "site" / f"{name}.yaml").write_text(text)
        (folder / "site" / "detector.poni").write_text(PONI)
        with resources.as_file(resources.files("beamline_side.simulation") / "demo" / "sample.cfg") as cfg:
            shutil.copy(cfg, folder / "site" / "sample.cfg")


def spectra(raw: pathlib.Path, shape: tuple[int, int]) -> None:
    """Write the spectra of two detector elements, and encoders, one file a line, as P06 does; eight lines again and again."""
    lines = min(8, shape[0])
    beamline.simulate(raw, Scan(id=ScanId(ID), shape=(lines, shape[1])), seconds_per_line=0)
    for device in (beamline.DETECTOR, beamline.ENCODERS):
        for row in range(lines, shape[0]):
            shutil.copy(raw / ID / device / f"{ID}_{row % lines:05d}.nxs", raw / ID / device / f"{ID}_{row:05d}.nxs")
    for row in range(shape[0]):
        with h5py.File(raw / ID / beamline.DETECTOR / f"{ID}_{row:05d}.nxs", "r+") as file:
            file["entry/instrument/detector/sequence_number"][()] = 1 + row * shape[1] + np.arange(shape[1])
        with h5py.File(raw / ID / beamline.ENCODERS / f"{ID}_{row:05d}.nxs", "r+") as file:
            file["entry/data/encoder_2"][()] += beamline.STEP * (row - row % lines)
    (raw / f"{ID}.nxs").unlink()


def frames(raw: pathlib.Path, shape: tuple[int, int]) -> None:
    """Write frames of an Eiger 4M, bitshuffle-LZ4, one file for each 100; ten different ones, again and again."""
    random, count, in_file = np.random.default_rng(0), shape[0] * shape[1], 100
    stored_as = {"dtype": "u4", "chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")}
    (raw / ID).mkdir()
    with h5py.File(raw / "some.h5", "w") as file:
        stored = file.create_dataset("data", (10, *SHAPE), **stored_as)
        for number in range(10):
            frame = random.poisson(5.0, SHAPE).astype("u4")
            frame[1029:1039], frame[:, 1000:1010] = 2**32 - 1, 2**32 - 1
            stored[number] = frame
        chunks = [stored.id.read_direct_chunk((number, 0, 0))[1] for number in range(10)]
    (raw / "some.h5").unlink()
    for first in range(0, count, in_file):
        here = min(in_file, count - first)
        with h5py.File(raw / ID / f"{ID}_data_{first // in_file + 1:06d}.h5", "w") as file:
            made = file.create_dataset("entry/data/data", (here, *SHAPE), **stored_as)
            made.attrs["image_nr_low"], made.attrs["image_nr_high"] = first + 1, first + here
            for number in range(here):
                made.id.write_direct_chunk((number, 0, 0), chunks[number % 10])


def columns(raw: pathlib.Path, shape: tuple[int, int]) -> None:
    """Write positions and two counters, one file for each ten lines."""
    random, lines = np.random.default_rng(0), 10
    (raw / ID).mkdir()
    for first in range(0, shape[0], lines):
        u, v = np.meshgrid(np.arange(shape[1]) * 200, (first + np.arange(lines)) * 200)
        with h5py.File(raw / ID / f"{ID}_{first // lines:05d}.h5", "w") as file:
            file["u"], file["v"] = u.ravel(), v.ravel()
            file["i0"], file["diode"] = random.poisson(900, u.size), random.poisson(300, u.size)


def _xrf(metric: str, lines: int) -> Case:
    return Case(metric, (lines, 501), spectra, {"encoders": ENCODERS, "xrf": XRF}, "xrf", "xrf", "sample.cfg")


CASES = (
    _xrf("xrf_5k_s", 10),
    _xrf("xrf_50k_s", 101),
    _xrf("xrf_200k_s", 404),
    Case("xrd_500_s", (20, 25), frames, {"xrd": XRD}, "xrd", "xrd", "detector.poni"),
    Case("points_1m_s", (1000, 1000), columns, {"positions": POSITIONS, "counters": COUNTERS}, "points", "counters"),
)
