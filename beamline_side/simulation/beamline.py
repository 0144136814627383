"""A simulated beamline: writes a scan directory in the layout of beamline P06, in real time.

One file per device and line, opened, written and closed in place as detectors do; the master comes last, as NexDaTaS makes it.
The demo's PyMca configuration fits a polynomial continuum: SNIP clips a noisy background below its mean and leaves the rest to
the peaks (8 to 22 % too much at 3 counts per channel; the polynomial is within 0.5 %). The true values are written beside the raw
data (`simulated_truth.h5`), so that the results can be compared with them.
"""

import pathlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_side.simulation import sample as physics
from beamtide import clock
from beamtide.errors import BadInput
from beamtide.messages.metadata import Scan

DETECTOR, ENCODERS = "xspress3_mini_189", "pilctriggergenerator_04"
SHARES = (0.55, 0.45)
STEP = 0.2
"""Distance of points and lines in µm."""
JITTER = 0.004
"""Standard deviation of positions in µm."""


def simulate(
    raw: pathlib.Path,
    scan: Scan,
    seconds_per_line: float = 0.35,
    seed: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Measure `scan` (slow, fast) into `raw`, one line every `seconds_per_line`, until it is over or `stopped`."""
    rows, columns = _shape(scan)
    with resources.as_file(resources.files("beamline_side.simulation") / "demo" / "sample.cfg") as configuration:
        shapes = physics.templates(configuration)
    folder, random = raw / scan.id, np.random.default_rng(seed)
    sample = physics.areas((rows, columns))
    for device in (DETECTOR, ENCODERS):
        (folder / device).mkdir(parents=True, exist_ok=True)
    _write(folder / "simulated_truth.h5", {name: area.ravel() for name, area in sample.items()})
    begin = clock.monotonic()
    for row in range(rows):
        if stopped():
            return
        line = {name: area[row] for name, area in sample.items()}
        measured = physics.measure(physics.expected(line, shapes), SHARES, random)
        _write(folder / ENCODERS / f"{scan.id}_{row:05d}.nxs", _encoders(row, columns, random))
        _write(folder / DETECTOR / f"{scan.id}_{row:05d}.nxs", _spectra(row, columns, measured))
        clock.pause(max(0.0, begin + (row + 1) * seconds_per_line - clock.monotonic()))
    _master(raw, scan, rows, columns)


def truth(folder: pathlib.Path) -> dict[str, NDArray[np.float64]]:
    """Return the expected area of each element at each index, from the folder of a simulated scan."""
    with h5py.File(folder / "simulated_truth.h5", "r") as file:
        return {name: file[name][()] for name in file}


def compare(recovered: dict[str, NDArray[Any]], true: dict[str, NDArray[np.float64]]) -> list[tuple[str, float, float]]:
    """Return per element: recovered / true for the whole scan, and the uncertainty of that ratio from counting statistics."""
    rows = []
    for name, area in true.items():
        found = np.asarray(recovered[name], np.float64).ravel()
        there = np.isfinite(found)
        total = area[there].sum()
        spread = np.sqrt(np.square(found[there] - area[there]).sum())
        rows.append((name, float(found[there].sum() / total), float(spread / total)))
    return rows


def _shape(scan: Scan) -> tuple[int, int]:
    if len(scan.shape) != 2:
        raise BadInput(f"{scan.id}: a simulated scan has two dimensions (slow, fast), not {len(scan.shape)}")
    return scan.shape[0], scan.shape[1]


def _encoders(row: int, columns: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Encoder 1 is the rotation, 2 is v (slow), 3 is u (fast), 4 is w; angles in degrees, lengths in µm."""
    jitter = random.normal(0.0, JITTER, (3, columns))
    u, v = np.arange(columns) * STEP + jitter[0], np.full(columns, row * STEP) + jitter[1]
    values = {"encoder_1": np.zeros(columns), "encoder_2": v, "encoder_3": u, "encoder_4": jitter[2]}
    return {f"entry/data/{name}": value for name, value in values.items()}


def _spectra(row: int, columns: int, measured: physics.Measured) -> dict[str, NDArray[Any]]:
    first = row * columns + 1
    found: dict[str, NDArray[Any]] = {"entry/instrument/detector/sequence_number": np.arange(first, first + columns)}
    for element in range(len(SHARES)):
        where = f"entry/instrument/xspress3/channel{element:02d}"
        found[f"{where}/histogram"] = measured.spectra[:, element]
        found[f"{where}/scaler/totalticks"] = np.full(columns, physics.TICKS, np.uint32)
        found[f"{where}/scaler/deadtimeticks"] = measured.dead_ticks[:, element]
    return found


def _write(path: pathlib.Path, arrays: dict[str, NDArray[Any]]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def _master(raw: pathlib.Path, scan: Scan, rows: int, columns: int) -> None:
    slow, fast = (rows - 1) * STEP, (columns - 1) * STEP
    command = f"dmesh scanv 0 {slow:g} {rows - 1} scanu 0 {fast:g} {columns - 1} 0.05"
    with h5py.File(raw / f"{scan.id}.nxs", "w") as file:
        file.attrs["NX_class"] = "NXroot"
        classes = {"scan": "NXentry", "scan/sample": "NXsample", "scan/instrument": "NXinstrument", "scan/data": "NXdata"}
        for name, kind in classes.items():
            file.create_group(name).attrs["NX_class"] = kind
        entry = file["scan"]
        entry["title"], entry["end_time"] = command, clock.iso()
        entry["program_name"] = "Beamtide simulation"
        entry["program_name"].attrs["scan_command"] = command
        entry["sample/name"], entry["instrument/name"] = "simulated", "P06"
        entry["data/energy"] = np.full(rows * columns, 18000.0)
        entry["data/energy"].attrs["units"] = "eV"
        for device in (DETECTOR, ENCODERS):
            group = entry.create_group(f"instrument/{device}/collection")
            group.attrs["NX_class"], group.parent.attrs["NX_class"] = "NXcollection", "NXdetector"
            for row in range(rows):
                relative = f"{scan.id}/{device}/{scan.id}_{row:05d}.nxs"
                group[f"data_{row:05d}"] = h5py.ExternalLink(relative, "/entry")
