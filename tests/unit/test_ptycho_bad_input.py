"""Ptychography: each way to be wrong is one sentence that says what to do."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities.base import run
from cluster_side.modalities.context import Alone, Context
from cluster_side.modalities.ptychography.engines.backend import numpy_backend
from cluster_side.modalities.ptychography.frames import Cut, prepare
from cluster_side.modalities.ptychography.reconstruction import Means, Reconstruction
from cluster_side.modalities.ptychography.scan import scan_of
from cluster_side.modalities.ptychography.spec import PtychographySettings
from tests.ptycho_scans import Truth, simulate

PTYCHO = registry.find("modalities", "ptychography")


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate(side=5, size=32)


def refused(truth: Truth, arrays: dict[str, np.ndarray] | None = None, files: Any = None, **settings: Any) -> str:
    given = {**truth.arrays(), **(arrays or {})}
    values = {key: value for key, value in truth.settings(recipe="LSQML 1", **settings).items() if value is not None}
    with pytest.raises(BadInput) as caught:
        PTYCHO.load(values, files or {})(given)
    return str(caught.value)


def test_positions_without_overlap(truth: Truth) -> None:
    sentence = refused(truth, {"positions": truth.arrays()["positions"] * 1e3})
    assert "nothing overlaps" in sentence
    assert "check the unit of the positions" in sentence


def test_positions_that_do_not_move(truth: Truth) -> None:
    assert "within one object pixel" in refused(truth, {"positions": truth.arrays()["positions"] * 1e-3})


def test_fewer_frames_than_positions(truth: Truth) -> None:
    assert "24 frames and 25 positions" in refused(truth, {"frames": truth.frames[:-1]})


def test_energy_in_electronvolts(truth: Truth) -> None:
    assert "8000 eV would be 8 keV" in refused(truth, energy=8000.0)


@pytest.mark.parametrize(("name", "value"), [("distance", 3000.0), ("detector_pixel", 75e-6), ("energy", -1.0)])
def test_other_units(name: str, value: float, truth: Truth) -> None:
    assert name in refused(truth, **{name: value})


def test_geometry_that_nobody_knows(truth: Truth) -> None:
    assert "settings.distance is required (m)" in refused(truth, distance=None)


def test_dark_frames_only(truth: Truth) -> None:
    assert "are dark" in refused(truth, {"frames": np.zeros_like(truth.frames)})


def test_frames_of_nan_only(truth: Truth) -> None:
    assert "0% of the pixels good" in refused(truth, {"frames": np.full(truth.frames.shape, np.nan)})


def test_a_pixel_of_nan_is_left_out(truth: Truth) -> None:
    spoilt = truth.frames.astype(float)
    spoilt[3, 2, 1] = np.nan
    assert not prepare(spoilt, Cut("corner")).good[2, 1]
    found = run(PTYCHO, {**truth.arrays(), "frames": spoilt}, truth.settings(recipe="LSQML 2", device="cpu"))
    assert np.isfinite(found["object"]).all()


def test_positions_of_nan_are_left_out(truth: Truth) -> None:
    positions = truth.arrays()["positions"].copy()
    positions[7] = np.nan
    found = run(PTYCHO, {**truth.arrays(), "positions": positions}, truth.settings(recipe="LSQML 2", device="cpu"))
    assert np.isnan(found["position_x_refined"][7])
    assert np.isfinite(found["object"]).all()
    assert "ptychography needs at least two" in refused(truth, {"positions": positions * np.nan})


def test_a_probe_larger_than_its_array(truth: Truth, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "probe.npy", np.ones((64, 64), complex))
    sentence = refused(truth, None, {"probe": tmp_path / "probe.npy"}, probe={"kind": "former"})
    assert "the former one has (64, 64) pixels, this scan's array (32, 32)" in sentence
    assert "wider than" in refused(truth, probe={"kind": "aperture", "diameter": 1e-3})


def test_optics_that_light_nothing(truth: Truth) -> None:
    optics = {"kind": "fzp", "diameter": 1e-4, "outer_zone": 1e-7, "stop": 2e-4}
    assert "lights no pixel" in refused(truth, probe=optics)


def test_optics_without_their_lengths(truth: Truth) -> None:
    assert "needs aperture_y and aperture_x" in refused(truth, probe={"kind": "kb"})


def test_no_former_probe(truth: Truth, tmp_path: pathlib.Path) -> None:
    assert "needs the calibration file 'probe'" in refused(truth, probe={"kind": "former"})
    (tmp_path / "probe.npy").write_bytes(b"no array")
    assert "no probe can be read" in refused(truth, None, {"probe": tmp_path / "probe.npy"}, probe={"kind": "former"})


def test_a_mask_of_another_detector(truth: Truth, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((5, 5), bool))
    assert "make it from the same detector" in refused(truth, None, {"mask": tmp_path / "mask.npy"})


def test_a_crop_that_does_not_fit(truth: Truth) -> None:
    assert "do not fit" in refused(truth, centre=(3.0, 16.0), crop=16)


def test_inputs_that_are_not_there(truth: Truth) -> None:
    assert "name it in the pipeline's inputs" in refused(truth, positions=("encoders/y", "encoders/x"))
    with pytest.raises(BadInput, match="the task has no array of that name"):
        PTYCHO.load(truth.settings(), {})({"positions": truth.positions})


def test_the_near_field_moves_no_probe(truth: Truth) -> None:
    assert "in the near field" in refused(truth, source=0.1, subpixel=True)


def test_a_gpu_that_is_not_there(truth: Truth) -> None:
    try:
        import cupy

        if cupy.cuda.is_available():
            pytest.skip("there is a GPU here")
    except ImportError:
        pass
    assert "set device: cpu" in refused(truth, device="gpu")


class SmallDevice:
    """NumPy with room for so many waves at once, as a GPU would have: more are a MemoryError."""

    def __init__(self, room: int) -> None:
        self.room, self.inner = room, numpy_backend()
        self.backend = dataclasses.replace(self.inner, name="small", fft2=self.fft2, block_bytes=1 << 20)

    def fft2(self, waves: np.ndarray) -> np.ndarray:
        if len(waves) > self.room:
            raise MemoryError(f"{waves.nbytes} bytes")
        return self.inner.fft2(waves)


@pytest.mark.parametrize("room", [1, 5])
def test_a_full_gpu_gets_smaller_blocks_and_says_so(room: int, truth: Truth) -> None:
    settings = PtychographySettings(**truth.settings(recipe="RAAR 3 -> LSQML 3"))
    scan = scan_of(truth.arrays(), settings, None)
    notes: list[str] = []
    context = Context(note=notes.append)
    found = Reconstruction(Means(settings, context, SmallDevice(room).backend, None), scan).solve(np.arange(25), live=False)[0]
    usual = Reconstruction(Means(settings, Context(team=Alone()), numpy_backend(), None), scan).solve(np.arange(25), live=False)[
        0
    ]
    np.testing.assert_allclose(found.object, usual.object, rtol=1e-3, atol=1e-4)
    assert notes
    assert "out of memory: blocks of" in notes[0]


def test_a_gpu_without_room_for_one_position(truth: Truth) -> None:
    settings = PtychographySettings(**truth.settings(recipe="LSQML 1"))
    means = Means(settings, Context(note=lambda _: None), SmallDevice(0).backend, None)
    job = Reconstruction(means, scan_of(truth.arrays(), settings, None))
    with pytest.raises(BadInput, match="not even one position"):
        job.solve(np.arange(25), live=False)
