"""XRF with `engine: pymca`: PyMca's own numbers on the measured map, and for all engines one sentence for each bad configuration.

Task size matters with PyMca's fast fit, in two ways. Its `refit` sets a negative area to zero, instead of fitting again without
it, when fewer than 0.25 % of the spectra of one call need that; and weight = 1 takes its weights from the sum of one call.
So a map that is fitted line by line is not exactly the map that is fitted whole; the test below holds how far apart they may be.
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from beamtide import registry
from beamtide import registry as plugins
from beamtide.errors import BadInput
from cluster_side.modalities.base import checked, run
from cluster_side.modalities.points.columns import monitor_factor
from cluster_side.modalities.xrf.pymca_fit import KeptFit
from cluster_side.modalities.xrf.spec import XrfSettings
from tests.xrf_spectra import summed

XRF = registry.find("modalities", "xrf")
Kernel = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
SETTINGS = {"engine": "pymca", "detectors": [3], "dead_time": False}


@pytest.fixture(scope="module")
def cfg(test_data: pathlib.Path) -> pathlib.Path:
    return test_data / "xrf" / "nanomax_fit_12keV.cfg"


@pytest.fixture(scope="module")
def kernel(cfg: pathlib.Path) -> Kernel:
    return XRF.load(SETTINGS, {"cfg": cfg})


@pytest.fixture(scope="module")
def frames(test_data: pathlib.Path) -> dict[str, np.ndarray]:
    return plugins.find("formats", "nanomax_xspress3").read(test_data / "xrf" / "nanomax_scan_000008_xspress3.hdf5", 0, 1111, {})


@pytest.fixture(scope="module")
def expected(test_data: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(test_data / "xrf" / "expected_nanomax_fast_weight0_refit.npz", allow_pickle=False) as stored:
        return {
            f"area/{name}".replace(" ", "_"): area.ravel()
            for name, area in zip(stored["names"], stored["parameters"], strict=True)
        }


def test_the_whole_map_is_pymcas(kernel: Kernel, frames: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    found = kernel(frames)
    assert {name for name in found if name.startswith("area/")} == expected.keys()
    for name, area in expected.items():
        assert found[name].sum() == pytest.approx(area.sum(dtype=float), rel=1e-6), name
        np.testing.assert_allclose(found[name], area, atol=0.01)
    headers = {one.name: one for one in checked(found, XRF.declared(SETTINGS), 1111)}
    assert headers["area/Fe_K"].units == "counts"
    assert headers["energy"].units == "keV"
    np.testing.assert_array_equal(found["spectrum/sum"], frames["spectra"][:, 3].sum(axis=0))
    np.testing.assert_array_equal(found["total_counts"], frames["spectra"][:, 3].sum(axis=1))
    assert found["energy"][int(np.argmax(found["spectrum/sum"][300:])) + 300] == pytest.approx(8.04, abs=0.03), "Cu K alpha"


def test_line_by_line_is_nearly_the_whole_map(
    kernel: Kernel, frames: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    """Measured: sums of elements above 1e4 counts differ by up to 1.6e-4 (Ti), single spectra by up to 2.1 counts (Cr)."""
    parts = [kernel({name: array[start : start + 101] for name, array in frames.items()}) for start in range(0, 1111, 101)]
    for name, area in expected.items():
        lines = np.concatenate([part[name] for part in parts])
        assert np.abs(lines - area).max() < 3.0, name
        if area.sum() > 1e4:
            assert lines.sum() == pytest.approx(area.sum(dtype=float), rel=1e-3), name


def test_a_forked_child_computes_the_same(kernel: Kernel, frames: dict[str, np.ndarray]) -> None:
    line = {name: array[:20] for name, array in frames.items()}
    ours = kernel(line)["area/Cu_K"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, kernel(line)["area/Cu_K"].tobytes())
        os._exit(0)
    assert os.read(reading, ours.nbytes) == ours.tobytes()
    assert os.waitpid(child, 0)[1] == 0
    os.close(reading)
    os.close(writing)


def test_the_fit_is_least_squares_with_pymcas_model(cfg: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Without background, areas that built a spectrum come back, and equal a naive solution with the same matrix."""
    plain = tmp_path / "plain.cfg"
    plain.write_text(cfg.read_text().replace("stripflag = 1", "stripflag = 0"))
    fit = kept_fit(plain)
    (matrix, names, _, _), truth = model_of(fit), 1000.0 * (1 + np.arange(22))
    spectrum = np.zeros((1, 1251))
    spectrum[0, 100:1251] = matrix @ truth
    areas, _ = fit.fit(spectrum, refit=True)
    assert len(names) == 22
    np.testing.assert_allclose(areas[:, 0], truth, rtol=1e-6)
    np.testing.assert_allclose(areas[:, 0], np.linalg.lstsq(matrix, spectrum[0, 100:1251], rcond=None)[0], rtol=1e-6)


def kept_fit(path: pathlib.Path) -> KeptFit:
    from cluster_side.modalities.xrf import pymca_file

    fit = KeptFit(pymca_file.read(path), 0)
    fit.fit(np.zeros((1, 1251)), refit=True)
    return fit


def model_of(fit: KeptFit) -> Any:
    (model,) = fit._models.values()
    return model


def test_empty_spectra_give_zeros_and_nothing_is_printed(kernel: Kernel, capfd: pytest.CaptureFixture[str]) -> None:
    found = kernel({"spectra": np.zeros((3, 4, 2048), "u4")})
    assert all((array == 0).all() for name, array in found.items() if name.startswith(("area", "total", "spectrum")))
    assert np.isfinite(found["sigma/Cu_K"]).all()
    assert capfd.readouterr().out == ""


def test_dead_time_is_corrected_before_the_sum() -> None:
    frames = {"spectra": np.array([[[1, 2], [10, 20]]], "u4"), "dead_time_factor": np.array([[2.0, 1.5]])}
    np.testing.assert_array_equal(summed(frames, XrfSettings()), [[17.0, 34.0]])
    np.testing.assert_array_equal(summed(frames, XrfSettings(dead_time=False, detectors=[1])), [[10.0, 20.0]])


@pytest.mark.parametrize("engine", ["fast", "pymca"])
def test_a_spectrum_without_a_dead_time_factor_has_no_value(
    cfg: pathlib.Path, frames: dict[str, np.ndarray], engine: str
) -> None:
    line = {name: array[:4].copy() for name, array in frames.items()}
    line["dead_time_factor"][1, 3] = np.nan
    found = run(XRF, line, {"engine": engine, "detectors": [3]}, {"cfg": cfg})
    np.testing.assert_array_equal(np.isnan(found["area/Cu_K"]), [False, True, False, False])
    assert np.isfinite(found["spectrum/sum"]).all()


def test_areas_are_scaled_to_the_monitor() -> None:
    found = monitor_factor({"encoders/i0": np.array([1.0, 4.0, 0.0, np.nan])}, "encoders/i0", 2.0, 4)
    np.testing.assert_array_equal(found, [2.0, 0.5, np.nan, np.nan])
    with pytest.raises(BadInput, match="name it in the pipeline's inputs"):
        monitor_factor({}, "encoders/i0", 2.0, 4)
    np.testing.assert_array_equal(monitor_factor({}, None, None, 2), [1.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"detectors": [4]}, "there is no element 4; this detector has 0 to 3"),
        ({"detectors": [3, 3]}, "names an element twice"),
        ({"weight": 2}, "weight: Input should be 0 or 1"),
        ({"normalise_to": "encoders/i0"}, "go together"),
        ({}, "no 'dead_time_factor'; add it to source.options, or set dead_time: false"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        summed({"spectra": np.zeros((1, 4, 8))}, XRF.validated({"dead_time": not settings} | settings))  # type: ignore[arg-type]


def test_spectra_shorter_than_the_fit_limits(kernel: Kernel) -> None:
    with pytest.raises(BadInput, match="xmin 100, xmax 1250 of the PyMca configuration do not fit spectra of 1024 channels"):
        kernel({"spectra": np.zeros((1, 4, 1024))})


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[peaks]", "[pikes]", r"no section \[peaks\]"),
        ("[fit]", "[fitt]", r"no section \[fit\]"),
        ("energy = 12.0,", "energy = None,", "energy is missing"),
        ("energy = 12.0,", "energy = 12000.0,", "energy is 12000, which looks like eV"),
        ("strategyflag = 0", "strategyflag = 1", "no strategies"),
        ("stripalgorithm = 1", "stripalgorithm = 0", r"not 1 \(SNIP\)"),
        ("xmax = 1250", "xmax = 50", "xmin 100 and xmax 50 are not a range"),
        ("gain = 0.0100013", "gain = 0", "gain must be a positive number"),
        ("[attenuators]", "attenuators without bracket", "not a readable PyMca configuration"),
    ],
)
def test_a_bad_configuration_is_one_sentence(
    cfg: pathlib.Path, tmp_path: pathlib.Path, old: str, new: str, sentence: str
) -> None:
    bad, text = tmp_path / "bad.cfg", cfg.read_text()
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=sentence) as caught:
        XRF.load({}, {"cfg": bad})
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_without_elements_or_without_a_file(cfg: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = tmp_path / "bad.cfg"
    before, _, after = cfg.read_text().partition("[peaks]")
    bad.write_text(f"{before}[peaks]\n\n[fit]{after.partition('[fit]')[2]}")
    with pytest.raises(BadInput, match="names no element"):
        XRF.load({}, {"cfg": bad})
    bad.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(BadInput, match="not a readable PyMca configuration"):
        XRF.load({}, {"cfg": bad})
    with pytest.raises(BadInput, match=r"calibration\.cfg is missing"):
        XRF.load({}, {})
