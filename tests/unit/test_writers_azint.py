"""Patterns in a result file: entries that the NeXus validator accepts as NXazint1d and NXazint2d; numbers are not copied."""

import dataclasses
import pathlib
import subprocess
import sys

import h5py
import msgspec
import numpy as np
import pytest

from beamline_side.writers.nexus import write_result
from beamtide import registry
from beamtide.messages.results import Product
from cluster_side.modalities.base import checked, run
from tests import writer_scans

PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [60, 50], "orientation": 3}
Distance: 0.05
Poni1: 0.003
Poni2: 0.0025
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""


def written(folder: pathlib.Path, **settings: object) -> pathlib.Path:
    """Integrate made-up frames, a task a line, and write the result file."""
    (folder / "x.poni").write_text(PONI)
    given, xrd = {"points": 20, **settings}, registry.find("modalities", "xrd")
    frames = np.random.default_rng(0).poisson(9, (6, 60, 50)).astype("u2")
    results = []
    for number in range(4):
        arrays = dict(run(xrd, {"frames": frames + number}, given, {"poni": folder / "x.poni"}))
        request = writer_scans.line(number)[0]
        results.append((msgspec.structs.replace(request, datasets=checked(arrays, xrd.declared(given), 6)), arrays))
    product = Product(scan=writer_scans.product_of().scan, pipeline="xrd", settings=writer_scans.SETTINGS)  # type: ignore[arg-type]
    content = dataclasses.replace(
        writer_scans.content(), product=product, modality="xrd", results=results, files={"poni": PONI.encode()}
    )
    write_result(folder / "xrd.h5", content)
    return folder / "xrd.h5"


def errors_of(path: pathlib.Path) -> str:
    command = [pathlib.Path(sys.executable).parent / "nxvalidate", "-e", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = done.stdout + done.stderr
    assert "Total number of errors" in text, text
    return text


def test_patterns_and_cakes_are_valid_by_definition(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, cake=8)
    with h5py.File(path) as file:
        for kind, shape in (("azint1d", (24, 20)), ("azint2d", (24, 8, 20))):
            data = file[f"{kind}/data"]
            assert data["I"].shape == shape
            assert data["I"].id.__hash__() == file[f"entry/data/{kind}/I"].id.__hash__(), "a link, no copy"
            assert file[f"{kind}/solid_angle_applied"][()]
            assert not file[f"{kind}/polarization_applied"][()]
            assert file[f"{kind}/instrument/monochromator/energy"][()] == pytest.approx(12.398, abs=1e-3)
            assert data.attrs["signal"] == "I"
            assert data["radial_axis"].attrs["long_name"] == "q"
        assert b"Wavelength: 1e-10" in file["azint1d/reduction/input/poni"][()]
        np.testing.assert_allclose(
            file["entry/data/scan/signal"][()] / file["entry/data/scan/norm"][()],
            np.average(file["azint1d/data/I"][()], axis=0),
            rtol=1e-5,
        )
    for kind in ("azint1d", "azint2d"):
        alone = tmp_path / f"{kind}.nxs"
        with h5py.File(path) as file, h5py.File(alone, "w") as copy:
            copy.attrs["NX_class"] = "NXroot"
            file.copy(kind, copy, name="entry")
        assert "Total number of errors: 0" in errors_of(alone), kind


def test_a_pattern_over_the_radius_has_no_such_definition(tmp_path: pathlib.Path) -> None:
    with h5py.File(written(tmp_path, unit="r_mm")) as file:
        assert set(file) == {"entry"}
        assert file["entry/data/azint1d/I"].shape == (24, 20)
