"""A reconstruction as a CXI file, read by the paths of the CXI specification."""

import json
import pathlib

import h5py
import numpy as np
import pytest

from beamline_side.writers.cxi import write_cxi
from beamtide.errors import BadInput
from beamtide.messages.metadata import SettingsDocument

SETTINGS = {"recipe": "RAAR 30 -> LSQML 30", "energy": 8.0, "distance": 2.5, "detector_pixel": 75}


def result_with(path: pathlib.Path, **more: np.ndarray) -> pathlib.Path:
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs.update({"scan": "scan_1", "pipeline": "ptycho"})
        for name, values in more.items():
            entry[f"data/{name}"] = values
    return path


def reconstruction() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    places = {f"position_{axis}_{kind}": rng.normal(size=5) for axis in "xy" for kind in ("used", "refined")}
    places["position_x_refined"][3] = np.nan
    return places | {
        "object": (rng.normal(size=(6, 8)) + 1j * rng.normal(size=(6, 8))).astype(np.complex64),
        "object_x": np.arange(8) * 2e-8,
        "object_y": np.arange(6) * 3e-8,
        "probe": (rng.normal(size=(2, 4, 4)) + 1j).astype(np.complex64),
        "pixel_size": np.array([3e-8, 2e-8]),
        "error": np.geomspace(1, 0.1, 4),
    }


def test_everything_is_where_the_specification_has_it(tmp_path: pathlib.Path) -> None:
    made = reconstruction() | {"quality/verdict": "did not converge", "quality/advice": "try flip: [1, -1]"}
    document = SettingsDocument(modality="ptychography", values=json.dumps(SETTINGS))
    write_cxi(tmp_path / "r.cxi", result_with(tmp_path / "r.h5", **made), document)
    with h5py.File(tmp_path / "r.cxi") as file:
        assert file["cxi_version"][()] == 160
        np.testing.assert_array_equal(file["entry_1/image_1/data"], made["object"])
        np.testing.assert_array_equal(file["entry_1/image_2/data"], made["probe"])
        np.testing.assert_allclose(file["entry_1/image_1/image_size"], [8 * 2e-8, 6 * 3e-8, 0])
        np.testing.assert_array_equal(file["entry_1/image_1/x"], made["object_x"])
        for number, kind in ((1, "refined"), (2, "used")):
            found = file[f"entry_1/sample_1/geometry_{number}/translation"][()]
            np.testing.assert_array_equal(found[:, 0], made[f"position_x_{kind}"])
            np.testing.assert_array_equal(found[:, 1], made[f"position_y_{kind}"])
        process = file["entry_1/image_1/process_1"]
        assert [process[name].asstr()[()] for name in ("verdict", "advice")] == ["did not converge", "try flip: [1, -1]"]
        assert process["command"].asstr()[()] == SETTINGS["recipe"]
        assert json.loads(process["settings"].asstr()[()]) == SETTINGS
        np.testing.assert_array_equal(process["error"], made["error"])
        instrument = file["entry_1/instrument_1"]
        assert instrument["source_1/energy"][()] == pytest.approx(8e3 * 1.602176634e-19)
        assert instrument["detector_1/distance"][()] == 2.5
        assert instrument["detector_1/x_pixel_size"][()] == pytest.approx(75e-6)


def test_what_is_no_reconstruction_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="cxi is for reconstructions, and ptycho has no error"):
        write_cxi(tmp_path / "r.cxi", result_with(tmp_path / "r.h5", com_x=np.zeros(3)), None)
