"""XRD: pyFAI's own numbers on measured frames, the shipped reference pattern, and one sentence for each bad file or setting."""

import pathlib
from collections.abc import Mapping
from typing import Any

import fabio
import h5py
import numpy as np
import pytest

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities import native
from cluster_side.modalities.base import checked, run
from cluster_side.modalities.pixels import ANY, Valid, valid_values
from cluster_side.modalities.xrd import model
from cluster_side.modalities.xrd.clip import ClippedTable
from cluster_side.modalities.xrd.integrate import IntegrationTable
from cluster_side.modalities.xrd.spec import XrdSettings
from tests import eiger_files

XRD = registry.find("modalities", "xrd")
CEO2 = {"shape": [1043, 981], "orientation": 2, "unit": "2th_deg", "points": 600, "polarization": 0.99}
LINES = (7.4616, 8.6179, 12.1985, 14.3106, 14.9495)
"""CeO2 (NIST SRM 674b, a = 5.41165 angstrom) at 0.4066 angstrom: 111, 200, 220, 311, 222 in degree 2 theta."""


@pytest.fixture(scope="module")
def poni(test_data: pathlib.Path) -> pathlib.Path:
    return test_data / "xrd" / "CeO2_Pilatus1M.poni"


@pytest.fixture(scope="module")
def image(test_data: pathlib.Path) -> np.ndarray:
    with fabio.open(str(test_data / "xrd" / "CeO2_Pilatus1M.tif")) as file:
        return np.array(file.data)


@pytest.fixture(scope="module")
def extras(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """A mask, a dark and a flat image, in three kinds of files."""
    folder, rng = tmp_path_factory.mktemp("extras"), np.random.default_rng(0)
    fabio.edfimage.EdfImage(data=(rng.random(image.shape) < 0.05).astype("u1")).write(str(folder / "mask"))
    np.save(folder / "dark.npy", rng.uniform(1, 5, image.shape).astype("f4"))
    with h5py.File(folder / "flat", "w") as file:
        file["flat"] = rng.uniform(0.8, 1.2, image.shape)
    return {"mask": folder / "mask", "dark": folder / "dark.npy", "flat": folder / "flat"}


def same(ours: np.ndarray, reference: np.ndarray, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(ours, reference, rtol=tolerance, atol=1e-9)
    assert np.isfinite(ours).mean() > 0.9


CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({}, False),
    "mask, dark, flat": ({}, True),
    "dummy and overflow": ({"dummy": -1, "delta_dummy": 1.5, "overflow": 3000}, True),
    "full": ({"split": "full"}, False),
    "cake": ({"cake": 36, "points": 200, "unit": "q_A^-1", "split": "no"}, False),
    "range": ({"radial_range": [5, 15], "azimuth_range": [-60, 60]}, False),
    "r": ({"unit": "r_mm", "solid_angle": False, "polarization": None}, False),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_patterns_are_pyfais(
    case: str, poni: pathlib.Path, image: np.ndarray, extras: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (extra, all_files), calibration = CASES[case], {"poni": poni}
    settings, calibration = CEO2 | extra, calibration | (extras if all_files else {})
    frames = {"frames": np.stack([image, image // 2])}
    ours, reference = (run(XRD, frames, settings | {"engine": engine}, calibration) for engine in ("fast", "pyfai"))
    for name, expected in reference.items():
        if name.startswith("azint2d/I"):
            np.testing.assert_array_equal(np.isfinite(ours[name]), np.isfinite(expected))
            np.testing.assert_allclose(ours[name], expected, rtol=1e-6)
        else:
            same(ours[name], expected)
    kernel = XRD.load(settings, calibration)
    monkeypatch.setattr(native, "library", lambda: None)
    for name, array in kernel(frames).items():
        np.testing.assert_allclose(array, ours[name], rtol=1e-6, err_msg=f"without a compiler: {name}")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")  # pyopencl tells of what the compiler of the device said
@pytest.mark.parametrize("case", ["plain", "mask, dark, flat", "dummy and overflow", "full", "cake"])
def test_opencl_finds_the_same(case: str, poni: pathlib.Path, image: np.ndarray, extras: dict[str, pathlib.Path]) -> None:
    """On whatever device there is: a GPU, or this CPU by POCL; it computes with 32-bit numbers."""
    pytest.importorskip("pyopencl", reason="OPENCL IS NOT TESTED: no pyopencl here")
    (extra, all_files), frames = CASES[case], {"frames": np.stack([image, image // 2])}
    calibration = {"poni": poni} | (extras if all_files else {})
    try:
        found = run(XRD, frames, CEO2 | extra | {"engine": "pyfai", "opencl": True}, calibration)
    except BadInput as error:
        pytest.skip(f"OPENCL IS NOT TESTED: {error}")
    reference = run(XRD, frames, CEO2 | extra, calibration)
    for name in ("azint1d/I", "azint1d/I_errors", *(["azint2d/I"] if "cake" in extra else [])):
        there = np.isfinite(reference[name]) & (np.abs(reference[name]) > 1e-3 * np.nanmax(reference[name]))
        assert there.mean() > 0.5
        np.testing.assert_allclose(found[name][there], reference[name][there], rtol=1e-4, err_msg=name)


def test_the_reference_pattern_and_its_peaks(poni: pathlib.Path, image: np.ndarray, test_data: pathlib.Path) -> None:
    """That pattern counts the gaps of the Pilatus, -1, as intensity; in floating point -1 is a number like any other."""
    image = image.astype("f4")
    reference = np.loadtxt(test_data / "xrd" / "CeO2_Pilatus1M.xy")
    peaks = {f"line{number}": (line - 0.25, line + 0.25) for number, line in enumerate(LINES)}
    settings = CEO2 | {"points": len(reference), "peaks": peaks, "rois": {"first": (7.3, 7.6)}}
    found = run(XRD, {"frames": image[None]}, settings, {"poni": poni})
    pattern = found["azint1d/I"][0]
    today = run(XRD, {"frames": image[None]}, CEO2 | {"points": len(reference), "engine": "pyfai"}, {"poni": poni})["azint1d/I"][
        0
    ]
    away, pyfais = (np.abs(values - reference[:, 1]) / np.abs(reference[:, 1]) for values in (pattern, today))
    assert np.median(away) < 1e-6
    assert np.percentile(away, 90) < 1e-5
    assert (away <= pyfais + 1e-6).all(), (
        "the rest is what lies between pyFAI's version of that file and today's (1.4e-4 at most)"
    )
    np.testing.assert_allclose(found["azint1d/radial_axis"], reference[:, 0], atol=2e-6)
    for number in range(len(LINES)):
        low, high = peaks[f"line{number}"]
        ours, theirs = (centre(reference[:, 0], values, low, high) for values in (pattern, reference[:, 1]))
        assert ours == pytest.approx(theirs, abs=0.002)
        assert found[f"peak_position/line{number}"][0] == pytest.approx(ours, abs=0.002)
        assert found[f"peak_area/line{number}"][0] > 0
    inside = (reference[:, 0] >= 7.3) & (reference[:, 0] <= 7.6)
    assert found["roi/first"][0] == pytest.approx(np.average(pattern[inside], weights=found["azint1d/norm"][inside]), rel=1e-6)


def centre(radial: np.ndarray, values: np.ndarray, low: float, high: float) -> float:
    """Return the centre of mass of a peak above the line through its ends, by the naive formula."""
    inside = (radial >= low) & (radial <= high)
    x, y = radial[inside], values[inside].astype(float)
    edge = max(1, round(0.15 * len(x)))
    slope = (y[-edge:].mean() - y[:edge].mean()) / (x[-edge:].mean() - x[:edge].mean())
    net = y - y[:edge].mean() - slope * (x - x[:edge].mean())
    return float((net * x).sum() / net.sum())


@pytest.mark.long
def test_the_rings_of_ceria_stand_where_its_lattice_says(poni: pathlib.Path, image: np.ndarray) -> None:
    peaks = {f"line{number}": (line - 0.2, line + 0.2) for number, line in enumerate(LINES)}
    found = run(XRD, {"frames": image[None]}, CEO2 | {"points": 2000, "peaks": peaks}, {"poni": poni})
    for number, line in enumerate(LINES):
        assert found[f"peak_position/line{number}"][0] == pytest.approx(line, abs=0.01)


@pytest.mark.parametrize("name", ["LaB6", "CeO2"])
def test_rings_of_a_calibrant_are_found_where_they_were_drawn(name: str, poni: pathlib.Path) -> None:
    """Rings drawn by pyFAI through the middle of each pixel; the split pixels of our bins put them back within 0.002 degrees."""
    from pyFAI.calibrant import get_calibrant

    from cluster_side.modalities.xrd import geometry

    settings = XRD.validated(CEO2 | {"points": 2000})
    assert isinstance(settings, XrdSettings)
    ai, calibrant = geometry.integrator(settings, {"poni": poni}), get_calibrant(name)
    calibrant.wavelength = ai.wavelength
    lines = [line for line in np.degrees(calibrant.get_2th()) if 5.0 < line < 15.0]
    angle = np.degrees(ai.array_from_unit(unit="2th_rad"))
    rings = sum(1000.0 * np.exp(-0.5 * ((angle - line) / 0.03) ** 2) for line in lines)
    peaks = {f"line{number}": (line - 0.12, line + 0.12) for number, line in enumerate(lines)}
    found = run(XRD, {"frames": np.asarray(rings, "f4")[None]}, CEO2 | {"points": 2000, "peaks": peaks}, {"poni": poni})
    assert len(lines) >= 5
    for number, line in enumerate(lines):
        assert found[f"peak_position/line{number}"][0] == pytest.approx(line, abs=0.002)


@pytest.mark.long
def test_sigma_clipping_is_pyfais(poni: pathlib.Path, image: np.ndarray) -> None:
    from cluster_side.modalities.xrd import geometry

    spots = image.copy()
    spots[tuple(np.random.default_rng(0).integers(0, 900, (200, 2)).T)] = 200000
    settings = XRD.validated(CEO2 | {"split": "no", "points": 400, "sigma_clip": {"threshold": 4.0}})
    assert isinstance(settings, XrdSettings)
    assert settings.sigma_clip
    table = IntegrationTable(model.prepare(settings, {"poni": poni}), "pattern")
    intensity, sigma = table.mean(ClippedTable(table, settings.sigma_clip).integrate(spots, Valid()))
    reference = geometry.integrator(settings, {"poni": poni}).sigma_clip_ng(
        spots, 400, unit="2th_deg", thres=4.0, max_iter=5, error_model="azimuthal", method=("no", "csr", "python"),
        polarization_factor=0.99,
    )  # fmt: skip
    np.testing.assert_allclose(intensity, reference.intensity, rtol=5e-5)  # its sums are in single precision
    np.testing.assert_allclose(sigma, reference.sem, rtol=1e-4)
    plain = table.mean(table.integrate(spots, Valid()))[0]
    clean = table.mean(table.integrate(image, Valid()))[0]
    spotted = plain != clean  # clipping also takes the tips of the rings, so the middle of these bins is looked at
    assert spotted.sum() > 50
    assert np.median(np.abs(intensity - clean)[spotted]) < 0.2 * np.median(np.abs(plain - clean)[spotted]), "the spots are gone"


def test_the_result_of_a_frame_does_not_depend_on_its_task(poni: pathlib.Path, image: np.ndarray) -> None:
    kernel = XRD.load(CEO2 | {"points": 200, "rois": {"a": (7, 8)}}, {"poni": poni})
    stack = np.stack([image // divisor for divisor in (1, 2, 3)])
    whole, parts = kernel({"frames": stack}), [kernel({"frames": stack[at : at + 1]}) for at in (2, 0, 1)]
    headers = {one.name: one for one in checked(whole, XRD.declared(CEO2 | {"rois": {"a": (7, 8)}}), 3)}
    for name, array in whole.items():
        if headers[name].per == "index":
            np.testing.assert_array_equal(np.concatenate([parts[at][name] for at in (1, 2, 0)]), array, err_msg=name)
        elif headers[name].merge == "sum":
            np.testing.assert_allclose(np.sum([part[name] for part in parts], axis=0), array, rtol=1e-12)


@pytest.mark.long
def test_uncertainties_are_those_of_counting(poni: pathlib.Path) -> None:
    """Frames of Poisson noise: intensities scatter as much as their sigma says."""
    settings = CEO2 | {"points": 100, "split": "no", "solid_angle": False, "polarization": None}
    frames = np.random.default_rng(1).poisson(20.0, (40, 1043, 981)).astype("u2")
    found = run(XRD, {"frames": frames}, settings, {"poni": poni})
    pulls = (found["azint1d/I"] - 20.0) / found["azint1d/I_errors"]
    assert np.nanstd(pulls) == pytest.approx(1.0, abs=0.05)
    assert abs(np.nanmean(pulls)) < 0.1


def test_measured_eiger_frames_from_file_to_pattern(poni: pathlib.Path, test_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    eiger_files.write(tmp_path / "eiger.h5", test_data / "streams" / "nanomax_eiger-1m.cbors", 3)
    frames: Mapping[str, Any] = registry.find("formats", "eiger").read(tmp_path / "eiger.h5", 0, 3, {})
    settings = {"shape": [1062, 1028], "orientation": 3, "points": 300}
    ours, reference = (run(XRD, frames, settings | {"engine": engine}, {"poni": poni}) for engine in ("fast", "pyfai"))
    same(ours["azint1d/I"], reference["azint1d/I"])
    same(ours["azint1d/I_errors"], reference["azint1d/I_errors"])
    assert (ours["pixels_lost"] > 10000).all(), "the gaps of the detector"


@pytest.mark.long
def test_panels_are_put_together(poni: pathlib.Path, image: np.ndarray) -> None:
    panels = {"m1": image[None, :500], "m2": image[None, 500:]}
    whole = run(XRD, {"frames": image[None]}, CEO2, {"poni": poni})
    parts = run(XRD, panels, CEO2 | {"panels": {"m1": [0, 0], "m2": [500, 0]}}, {"poni": poni})
    np.testing.assert_array_equal(parts["azint1d/I"], whole["azint1d/I"])
    with pytest.raises(BadInput, match=r"panels\.m2: \(543, 981\) at row 600, column 0 does not fit into \(1043, 981\)"):
        run(XRD, panels, CEO2 | {"panels": {"m1": [0, 0], "m2": [600, 0]}}, {"poni": poni})


@pytest.mark.long
def test_background_and_monitor(poni: pathlib.Path, image: np.ndarray, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "empty.npy", image // 4)
    calibration = {"poni": poni, "background": tmp_path / "empty.npy"}
    frames = {"frames": np.stack([image, image]), "counters/i0": np.array([2.0, 0.0])}
    scaled = {"normalise_to": "counters/i0", "normalise_reference": 1.0, "background_scale": 2.0}
    plain = run(XRD, {"frames": image[None]}, CEO2, {"poni": poni})["azint1d/I"][0]
    empty = run(XRD, {"frames": image[None] // 4}, CEO2, {"poni": poni})["azint1d/I"][0]
    found = run(XRD, frames, CEO2 | scaled, calibration)["azint1d/I"]
    np.testing.assert_allclose(found[0], 0.5 * (plain - 2 * empty), rtol=1e-4, atol=1e-3)
    assert np.isnan(found[1]).all()


def test_saturated_frames_have_no_value_and_are_counted(poni: pathlib.Path) -> None:
    frames = np.full((2, 1043, 981), 7, dtype="u2")
    frames[1] = 2**16 - 1
    found = run(XRD, {"frames": frames}, CEO2 | {"split": "no"}, {"poni": poni})
    assert np.isfinite(found["azint1d/I"][0]).all()
    assert np.isnan(found["azint1d/I"][1]).all()
    assert found["pixels_lost"].tolist() == [0, 1043 * 981]


@pytest.mark.parametrize(
    ("dtype", "good", "bad"), [("u1", [0, 253], [254, 255]), ("i4", [-5, 99], [100, 3, -1]), ("f4", [0.5], [np.nan, np.inf, 1e3])]
)
def test_which_values_are_measurements(dtype: str, good: list[float], bad: list[float]) -> None:
    valid = valid_values(np.dtype(dtype), ANY, (2.5, 3.5) if dtype == "i4" else None, None if dtype == "u1" else 100.0)
    assert valid.of(np.array(good, dtype)).all()
    assert not valid.of(np.array(bad, dtype)).any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shape": None}, r"the detector has no shape; set settings\.shape to \[rows, columns\]"),
        ({"orientation": None}, r"does not say where pixel 0 lies: set settings\.orientation to 3"),
        ({"radial_range": [50, 60]}, "leave no pixel of the detector"),
        ({"rois": {"far": [900, 910]}}, "rois.far: only 0 bins lie between 900 and 910; the pattern runs from"),
        ({"peaks": {"back": [9, 8]}}, "back: 9 to 8 is not a range"),
        ({"sigma_clip": {}}, "sigma_clip needs split: no"),
        ({"opencl": True}, "opencl needs engine: pyfai"),
        ({"normalise_to": "counters/i0"}, "go together"),
        ({"engine": "pyfai", "rois": {"a": [7, 8]}}, "need engine: fast"),
    ],
)
def test_wrong_settings_are_one_sentence(poni: pathlib.Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        XRD.load({name: value for name, value in (CEO2 | settings).items() if value is not None}, {"poni": poni})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Distance:", "Distanz:", "there is no Distance; save it again"),
        ("Wavelength: 4.066e-11", "", "there is no Wavelength"),
        ("Wavelength: 4.066e-11", "Wavelength: 0.4066", "Wavelength is 0.4066; it must be in m"),
        ("Distance: 0.2", "Distance: -0.2", "it must be a positive number in m"),
        ("PixelSize1: 0.000172\nPixelSize2: 0.000172\n", "", "no detector with a pixel size"),
        ("Distance: 0.208651380603", "Distance: far", "not a readable poni file"),
    ],
)
def test_a_bad_poni_file_is_one_sentence(poni: pathlib.Path, tmp_path: pathlib.Path, old: str, new: str, sentence: str) -> None:
    bad, text = tmp_path / "bad.poni", poni.read_text()
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=sentence) as caught:
        XRD.load(CEO2, {"poni": bad})
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_poni_file_of_version_2_1_says_its_orientation(poni: pathlib.Path, image: np.ndarray, tmp_path: pathlib.Path) -> None:
    old, new = poni.read_text(), tmp_path / "new.poni"
    config = '{"pixel1": 0.000172, "pixel2": 0.000172, "max_shape": [1043, 981], "orientation": 2}'
    new.write_text(
        "poni_version: 2.1\nDetector: Detector\nDetector_config: " + config + "\n"
        + "\n".join(line for line in old.splitlines() if line.startswith(("Distance", "Poni", "Rot", "Wavelength")))
    )  # fmt: skip
    settings = {name: value for name, value in CEO2.items() if name not in {"orientation", "shape"}}
    ours = run(XRD, {"frames": image[None]}, settings, {"poni": new})["azint1d/I"]
    np.testing.assert_array_equal(ours, run(XRD, {"frames": image[None]}, CEO2, {"poni": poni})["azint1d/I"])


def test_frames_and_masks_of_another_detector(poni: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((514, 1030), "u1"))
    with pytest.raises(
        BadInput,
        match=r"calibration\.mask has 514 x 1030 pixels .*, but the frames have 1043 x 981; use the mask",
    ):
        XRD.load(CEO2, {"poni": poni, "mask": tmp_path / "mask.npy"})
    np.save(tmp_path / "mask.npy", np.ones((1043, 981), "u1"))
    with pytest.raises(BadInput, match=r"calibration\.mask leaves no pixel"):
        XRD.load(CEO2, {"poni": poni, "mask": tmp_path / "mask.npy"})
    (tmp_path / "mask").write_bytes(b"not an image at all")
    with pytest.raises(BadInput, match=r"is not an image .*; expected one image"):
        XRD.load(CEO2, {"poni": poni, "mask": tmp_path / "mask"})
    kernel = XRD.load(CEO2 | {"points": 50, "split": "no"}, {"poni": poni})
    with pytest.raises(BadInput, match=r"has frames of shape \(512, 512\), but poni file and mask are for \(1043, 981\)"):
        kernel({"frames": np.zeros((1, 512, 512), "u2")})
    with pytest.raises(BadInput, match="the frames have no array 'frames', only other"):
        kernel({"other": np.zeros((1, 512, 512), "u2")})
    with pytest.raises(BadInput, match=r"calibration\.poni is missing"):
        XRD.load(CEO2, {})
