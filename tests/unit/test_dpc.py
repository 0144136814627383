"""DPC: moments of frames against their naive sums and scipy, masks and dark, shifts of known beams, measured frames."""

import bz2
import io
import pathlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities.base import run
from cluster_side.modalities.dpc import moments
from cluster_side.modalities.dpc.shift import shifts

DPC = registry.find("modalities", "dpc")
GEOMETRY = {"pixel_size": 75e-6, "distance": 2.0}
SIDES = {"left": ["a"], "right": ["b"], "bottom": ["a"], "top": ["b"]}
CFG = "scalers/scaler3_cts"


def dpc(frames: dict[str, np.ndarray], values: dict[str, object], **files: pathlib.Path) -> dict[str, np.ndarray]:
    return dict(run(DPC, frames, values, files))


def saved(folder: pathlib.Path, name: str, frame: np.ndarray) -> pathlib.Path:
    np.save(folder / f"{name}.npy", frame)
    return folder / f"{name}.npy"


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["u1", "u2", "u4", "i4", "f4", "f8", ">u2"]),
    st.integers(0, 10**6),
)
def test_sum_and_centre_of_mass_are_scipys(shape: tuple[int, int, int], dtype: str, seed: int) -> None:
    frames = np.random.default_rng(seed).poisson(3, shape).astype(dtype)
    found = dpc({"frames": frames}, {})
    for at, frame in enumerate(frames.astype(float)):
        if not frame.any():
            assert np.isnan(found["com_x"][at])
            assert found["flags/frame"][at] == 1
            continue
        y, x = ndimage.center_of_mass(frame)
        assert found["sum"][at] == pytest.approx(frame.sum(), rel=1e-6)
        assert (found["com_x"][at], found["com_y"][at]) == pytest.approx((x, y), abs=1e-4)
        columns = np.arange(shape[2])
        assert found["width_x"][at] == pytest.approx(
            np.sqrt((frame.sum(axis=0) * (columns - x) ** 2).sum() / frame.sum()), abs=1e-3
        )


def test_a_large_bright_frame_keeps_its_precision() -> None:
    random = np.random.default_rng(1)
    frame = random.poisson(1000 * np.exp(-((np.indices((1000, 1030)) - 400.3) ** 2).sum(axis=0) / 2e4)).astype("u4")
    found = dpc({"frames": frame[None]}, {})
    y, x = ndimage.center_of_mass(frame.astype(float))
    assert (found["com_x"][0], found["com_y"][0]) == pytest.approx((x, y), abs=1e-4)
    assert found["sum"][0] == pytest.approx(frame.sum(), rel=1e-7)


def test_mask_dark_and_pixels_at_the_end_of_their_range_do_not_count(tmp_path: pathlib.Path) -> None:
    frames = np.random.default_rng(4).poisson(50, (6, 20, 30)).astype("u4")
    dark, mask = np.full((20, 30), 2.5), np.zeros((20, 30), "u1")
    mask[3:5, 7:11] = 1
    expected = np.where(mask, 0, frames - dark)
    frames[:, 4, 8] = 2**32 - 1  # masked anyway
    frames[2, 11, 12] = 2**32 - 1
    expected[2, 11, 12] = 0
    found = dpc({"frames": frames}, {}, mask=saved(tmp_path, "mask", mask), dark=saved(tmp_path, "dark", dark))
    np.testing.assert_allclose(found["sum"], expected.sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["com_y"], [ndimage.center_of_mass(one)[0] for one in expected], atol=1e-5)
    assert found["flags/frame"][2] == 2


def test_the_dark_field_is_what_lies_outside_the_disc() -> None:
    frames = np.random.default_rng(4).poisson(5, (3, 21, 30)).astype("u2")
    found = dpc({"frames": frames}, {"disc": {"x": 14.0, "y": 10.0, "radius": 6.0}})
    y, x = np.indices((21, 30))
    outside = (x - 14.0) ** 2 + (y - 10.0) ** 2 > 36
    np.testing.assert_allclose(found["dark_field"], frames[:, outside].sum(axis=1) / frames.sum(axis=(1, 2)), rtol=1e-6)


def test_angles_are_pixels_times_size_over_distance() -> None:
    frames = np.zeros((2, 5, 9), "u2")
    frames[0, 2, 6] = frames[1, 4, 4] = 10
    found = dpc({"frames": frames}, {"geometry": GEOMETRY})
    np.testing.assert_allclose(found["angle_x"], [2 * 37.5e-6, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["angle_y"], [0.0, 2 * 37.5e-6], atol=1e-12)
    given_reference = dpc({"frames": frames}, {"geometry": GEOMETRY, "reference": [6.0, 2.0]})
    np.testing.assert_allclose(given_reference["angle_x"], [0.0, -2 * 37.5e-6], atol=1e-12)


@settings(max_examples=25)
@given(st.integers(20, 60), st.floats(-6, 6), st.floats(0.2, 3.0), st.integers(0, 10**6))
def test_a_moved_profile_is_found_where_it_went(length: int, moved: float, brightness: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    at = np.arange(length)
    bumps = [
        (random.uniform(0.4, 0.6) * length, random.uniform(1.5, max(1.5, 0.06 * length)), random.uniform(0.5, 2))
        for _ in range(3)
    ]

    def beam(shift: float) -> np.ndarray:
        return sum(height * np.exp(-(((at - place - shift) / width) ** 2) / 2) for place, width, height in bumps)

    if abs(moved) < 0.1 * length:
        shift, amplitude = shifts(brightness * beam(moved)[None], beam(0.0))
        assert shift[0] == pytest.approx(moved, abs=2e-3)
        assert amplitude[0] == pytest.approx(brightness, rel=2e-3)


def test_the_shift_fit_is_the_least_sum_of_squares() -> None:
    """Against a brute search of the same model, with noise."""
    random = np.random.default_rng(8)
    reference = np.exp(-(((np.arange(40) - 19.0) / 4) ** 2))
    noisy = 0.7 * np.roll(reference, 3) + 0.01 * random.normal(size=40)
    w, line, frame = 2 * np.pi * np.fft.fftfreq(40), np.fft.fft(reference), np.fft.fft(noisy)

    def misfit(shift: float) -> float:
        model = line * np.exp(-1j * w * shift)
        a = (frame * model.conj()).real.sum() / (np.abs(model) ** 2).sum()
        return float((np.abs(frame - a * model) ** 2).sum())

    trial = np.linspace(2.5, 3.5, 100001)
    best = trial[np.argmin([misfit(one) for one in trial[::100]]) * 100]
    near = trial[np.abs(trial - best) < 2e-3]
    assert shifts(noisy[None], reference)[0][0] == pytest.approx(near[np.argmin([misfit(one) for one in near])], abs=2e-5)
    assert np.isnan(shifts(np.zeros((1, 40)), reference)[0][0])


def test_fourier_shift_needs_and_uses_the_empty_beam(tmp_path: pathlib.Path) -> None:
    y, x = np.indices((40, 50))
    beam = [1e3 * np.exp(-((x - 24 - dx) ** 2 + (y - 20 - dy) ** 2) / 40) for dx, dy in ((0, 0), (1.5, -2.25))]
    values = {"method": "fourier_shift", "geometry": GEOMETRY}
    found = dpc({"frames": np.array(beam)}, values, reference=saved(tmp_path, "reference", beam[0]))
    np.testing.assert_allclose([found["com_x"], found["com_y"]], [[0, 1.5], [0, -2.25]], atol=1e-3)
    np.testing.assert_allclose(found["angle_x"], np.array([0, 1.5]) * 37.5e-6, atol=1e-7)
    with pytest.raises(BadInput, match="reference is missing"):
        dpc({"frames": np.array(beam)}, values)


@settings(max_examples=25)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-5, 5))
def test_quadrants_give_their_contrast_without_dark(x: float, y: float, dark: float) -> None:
    signs = {"a": (-1, 1), "b": (1, 1), "c": (1, -1), "d": (-1, -1)}
    frames = {name: np.array([100 * (1 + sx * x) * (1 + sy * y) + dark]) for name, (sx, sy) in signs.items()}
    frames["a"] = (frames["a"] - dark) / 2 + dark
    sides = {"left": ["a", "d"], "right": ["b", "c"], "bottom": ["c", "d"], "top": ["a", "b"]}
    segments = sides | {"dark": dict.fromkeys("abcd", dark), "gain": {"a": 2.0}, "scale_x": 1e-3, "scale_y": -2e-3}
    found = dpc(frames, {"frames": None, "segments": segments})
    assert (found["contrast_x"][0], found["contrast_y"][0]) == pytest.approx((x, y), abs=1e-9)
    assert (found["angle_x"][0], found["angle_y"][0]) == pytest.approx((1e-3 * x, -2e-3 * y), abs=1e-9)
    assert found["flags/frame"][0] == 0


@pytest.mark.parametrize("tasks", [7, 50])
def test_a_cut_into_tasks_changes_next_to_nothing(tasks: int) -> None:
    frames = np.random.default_rng(4).poisson(5, (60, 33, 31)).astype("u2")
    frames[13] = 0
    values = {"geometry": GEOMETRY, "disc": {"x": 15.0, "y": 16.0, "radius": 9.0}}
    whole = dpc({"frames": frames}, values)
    parts = [dpc({"frames": part}, values) for part in np.array_split(frames, tasks)]
    for name, expected in whole.items():
        np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("frames", "values", "sentence"),
    [
        (np.zeros((2, 3, 3)), {"frames": "images"}, "no array 'images', only frames"),
        (np.zeros((2, 3)), {}, r"shape \(2, 3\); expected frames"),
        (np.zeros((2, 3, 3)), {"frames": None}, "frames: null and segments"),
        (np.zeros((2, 3, 3)), {"disc": {"x": 1, "y": 1, "radius": 9}}, "nothing outside"),
        (np.zeros((2, 3, 3)), {"geometry": {"pixel_size": 1e-4}}, r"geometry\.distance: Field required"),
        (np.zeros(2), {"frames": None, "segments": SIDES | {"dark": {"a": 1.0}}}, "dark: b has none; give one to every segment"),
        (np.zeros(2), {"frames": None, "segments": SIDES | {"dark": {"A": 1.0}}}, r"dark\.A is no segment; segments are a, b"),
        (np.zeros(2), {"frames": None, "segments": SIDES | {"gain": {"z": 1.0}}}, r"gain\.z is no segment"),
    ],
)
def test_bad_input_is_one_sentence(frames: np.ndarray, values: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        dpc({"frames": frames}, values)
    assert "\n" not in str(caught.value)


def test_calibration_files_must_be_frames_of_one_size_and_are_never_unpickled(tmp_path: pathlib.Path) -> None:
    frames = {"frames": np.zeros((2, 3, 3))}
    with pytest.raises(BadInput, match=r"mask has shape \(2, 2\), the frames have \(3, 3\)"):
        dpc(frames, {}, mask=saved(tmp_path, "mask", np.zeros((2, 2))))
    with pytest.raises(BadInput, match="expected one image"):
        dpc(frames, {}, mask=saved(tmp_path, "line", np.zeros(3)))
    np.save(tmp_path / "evil.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no frame")
    for name in ("evil.npy", "text.npy", "missing.npy"):
        with pytest.raises(BadInput, match=r"calibration\.mask: .* is not an image .*; expected one image"):
            dpc(frames, {}, mask=tmp_path / name)


def test_the_siemens_star_has_the_known_centres(test_data: pathlib.Path) -> None:
    unpacked = io.BytesIO(bz2.decompress((test_data / "ptychography" / "siemens-star-small.npz.bz2").read_bytes()))
    with np.load(unpacked, allow_pickle=False) as stored:
        frames = np.fft.fftshift(stored["data"][0], axes=(-2, -1))
    expected = np.loadtxt(test_data / "dpc" / "siemens_star_com.csv", delimiter=",")[:, 2:]
    found = dpc({"frames": frames}, {})
    np.testing.assert_allclose(np.stack([found["com_y"], found["com_x"]], axis=1) - 64, expected, atol=1e-3)
    np.testing.assert_allclose(found["sum"], frames.sum(axis=(1, 2), dtype=float), rtol=1e-6)


def test_a_uniform_film_does_not_deflect(test_data: pathlib.Path) -> None:
    """APS 2-ID-E, segments CFG_2 to CFG_5 as MAPS combines them: flat, and independent of the flux."""
    with h5py.File(test_data / "dpc" / "aps2ide_axo_std_scalers.h5") as file:
        names = {"cfg2": f"{CFG}3.C", "cfg3": f"{CFG}3.D", "cfg4": f"{CFG}4.A", "cfg5": f"{CFG}4.B"}
        frames = {name: file[where][()].ravel() for name, where in names.items()}
    sides = {"right": ["cfg2", "cfg3"], "left": ["cfg4", "cfg5"], "top": ["cfg2", "cfg5"], "bottom": ["cfg3", "cfg4"]}
    found = dpc(frames, {"frames": None, "segments": sides | {"dark": 0.0}})
    total = sum(frames.values())
    np.testing.assert_allclose(found["sum"], total)
    np.testing.assert_allclose(found["contrast_x"], (frames["cfg2"] + frames["cfg3"] - frames["cfg4"] - frames["cfg5"]) / total)
    assert found["contrast_x"].std() < 0.01
    assert found["contrast_y"].std() < 0.01
    brighter = dpc({name: 2 * frame for name, frame in frames.items()}, {"frames": None, "segments": sides})
    np.testing.assert_allclose(brighter["contrast_x"], found["contrast_x"])
    assert (brighter["flags/frame"] == 4).all(), "no dark level was given"


def test_profiles_work_block_by_block() -> None:
    frames = np.random.default_rng(0).poisson(2, (9, 300, 200)).astype("u2")
    found = moments.profiles(frames, moments.FrameCorrection())
    np.testing.assert_allclose(found.rows, frames.sum(axis=2))
    np.testing.assert_allclose(found.columns, frames.sum(axis=1))
