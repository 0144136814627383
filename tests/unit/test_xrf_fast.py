"""XRF with the fast engine: PyMca's maps, SciPy's non-negative fit, known numbers from spectra that were made of them."""

import itertools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.optimize import nnls as scipy_nnls

from beamtide import registry
from beamtide import registry as plugins
from beamtide.errors import BadInput
from cluster_side.modalities import native
from cluster_side.modalities.base import checked, run
from cluster_side.modalities.xrf import elements, model, nnls, snip
from cluster_side.modalities.xrf.fast_fit import FastModel
from cluster_side.modalities.xrf.linear_fit import LinearFit
from cluster_side.modalities.xrf.spec import XrfSettings
from tests.xrf_spectra import summed

XRF = registry.find("modalities", "xrf")
Kernel = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
SETTINGS = {"detectors": [3], "dead_time": False, "mass_fractions": True}
MAJOR = 1e4


@pytest.fixture(scope="module")
def cfg(test_data: pathlib.Path) -> pathlib.Path:
    return test_data / "xrf" / "nanomax_fit_12keV.cfg"


@pytest.fixture(scope="module")
def plain_cfg(cfg: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The same without SNIP, and with a straight line as continuum."""
    path = tmp_path_factory.mktemp("cfg") / "plain.cfg"
    path.write_text(cfg.read_text().replace("stripflag = 1", "stripflag = 0").replace("continuum = 0", "continuum = 2"))
    return path


@pytest.fixture(scope="module")
def steel_cfg(test_data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("steel") / "steel.cfg"
    path.write_text((test_data / "xrf" / "Steel.cfg").read_text().replace("stripalgorithm = 0", "stripalgorithm = 1"))
    return path


@pytest.fixture(scope="module")
def kernel(cfg: pathlib.Path) -> Kernel:
    return XRF.load(SETTINGS, {"cfg": cfg})


@pytest.fixture(scope="module")
def frames(test_data: pathlib.Path) -> dict[str, np.ndarray]:
    return plugins.find("formats", "nanomax_xspress3").read(test_data / "xrf" / "nanomax_scan_000008_xspress3.hdf5", 0, 1111, {})


def ready(path: pathlib.Path, **settings: Any) -> FastModel:
    return FastModel(model.prepare(XrfSettings(**settings), {"cfg": path}))


def test_the_map_is_pymcas(kernel: Kernel, frames: dict[str, np.ndarray], test_data: pathlib.Path) -> None:
    found = kernel(frames)
    with np.load(test_data / "xrf" / "expected_nanomax_fast_weight0_refit.npz", allow_pickle=False) as stored:
        expected = dict(zip(stored["names"], stored["parameters"].reshape(22, -1).astype(float), strict=True))
    for name, area in expected.items():
        ours = found[f"area/{name}".replace(" ", "_")]
        assert np.corrcoef(ours, area)[0, 1] >= 0.998, name
        if area.sum() > MAJOR:
            assert ours.sum() == pytest.approx(area.sum(), rel=5e-4), name
    np.testing.assert_array_equal(found["spectrum/sum"], frames["spectra"][:, 3].sum(axis=0))
    headers = {one.name: one for one in checked(found, XRF.declared(SETTINGS), 1111)}
    assert headers["mass_fraction/Cu_K"].units == "1"
    assert headers["fit/Cu_K"].attributes == {"axis": "fit/energy"}


def test_the_result_of_a_spectrum_does_not_depend_on_its_task(kernel: Kernel, frames: dict[str, np.ndarray]) -> None:
    whole, order = kernel(frames), np.random.default_rng(1).permutation(1111)
    shuffled = kernel({name: array[order] for name, array in frames.items()})
    parts = [kernel({name: array[start : start + 37] for name, array in frames.items()}) for start in range(0, 1111, 37)]
    for name, array in whole.items():
        if len(array) == 1111:  # sigma and chi2 are in single precision
            rough = 1e-5 if name == "chi2" or name.startswith("sigma/") else 1e-9
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_allclose(joined, array, rtol=rough, atol=1e-9, err_msg=name)
            np.testing.assert_allclose(shuffled[name], array[order], rtol=rough, atol=1e-9, err_msg=name)
        elif name == "spectrum/sum" or (name.startswith("fit/") and name != "fit/energy"):
            np.testing.assert_allclose(np.sum([part[name] for part in parts], axis=0), array, rtol=1e-9, atol=1e-6, err_msg=name)


def test_the_fitted_sum_spectrum_is_the_sum_of_its_components(kernel: Kernel, frames: dict[str, np.ndarray]) -> None:
    found = kernel(frames)
    others = {"fit/total", "fit/energy", "fit/residual"}
    components = [array for name, array in found.items() if name.startswith("fit/") and name not in others]
    assert len(components) == 23
    np.testing.assert_allclose(found["fit/total"], np.sum(components, axis=0))
    np.testing.assert_allclose(found["fit/Cu_K"].sum(), found["area/Cu_K"].sum(), rtol=0.03)


def test_the_residual_shows_the_line_that_the_configuration_does_not_name(
    cfg: pathlib.Path, frames: dict[str, np.ndarray], tmp_path: pathlib.Path
) -> None:
    text = cfg.read_text()
    without = tmp_path / "without_zinc.cfg"
    without.write_text(re.sub(r"^Zn = .*$", "", text, flags=re.MULTILINE))
    assert without.read_text() != text
    whole, poor = (XRF.load({**SETTINGS, "mass_fractions": False}, {"cfg": path})(frames) for path in (cfg, without))
    for found in (whole, poor):
        within = np.isin(found["energy"], found["fit/energy"])
        np.testing.assert_allclose(found["fit/total"] + found["fit/residual"], found["spectrum/sum"][within], rtol=1e-9)
    more = poor["fit/residual"] - whole["fit/residual"]
    assert poor["fit/energy"][more.argmax()] == pytest.approx(8.64, abs=0.05), "Zn K alpha"


def test_snip_is_pymcas() -> None:
    from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import SpecfitFuns

    spectra = np.random.default_rng(2).poisson(1e4 * np.exp(-np.linspace(0, 6, 300)) + 2, (20, 300)).astype(float)
    for cuts in ([0, 299, 300], [0, 40, 41, 200, 300]):
        expected = spectra.copy()
        for row in expected:
            for low, high in itertools.pairwise(cuts):
                row[low:high] = SpecfitFuns.snip1d(row[low:high].copy(), 45, 0)
        net, single = np.empty(spectra.shape, np.float32), np.hstack([spectra, spectra])[:, :300].astype(np.float32)
        total = snip.subtract(single, net, 45, np.array(cuts))
        np.testing.assert_allclose(spectra - net, expected, rtol=1e-6, atol=1e-6 * spectra.max())
        np.testing.assert_allclose(total, expected.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize(("free_terms", "width", "compiled"), [(0, 11, True), (2, 11, True), (2, 19, True), (2, 11, False)])
def test_nnls_is_scipys(free_terms: int, width: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where lines overlap so much that the inverse is not used, and for spectra that do not fill a group of four."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    rng = np.random.default_rng(3)
    matrix = np.exp(-0.5 * ((np.arange(200)[:, None] - np.linspace(20, 180, 12)) / width) ** 2)
    lengths = np.linalg.norm(matrix, axis=0)
    condition = np.linalg.cond((matrix / lengths).T @ (matrix / lengths))
    assert (condition < nnls.WELL_CONDITIONED) == (width == 11), condition
    spectra = rng.poisson(np.maximum(rng.normal(0, 40, (402, 12)), 0) @ matrix.T).astype(float)
    free = np.arange(12) < free_terms
    problem, right = nnls.Problem(matrix.T @ matrix, free), spectra @ matrix
    found = problem.solve(right)
    both = np.hstack([matrix, -matrix[:, :free_terms]])  # a free parameter is the difference of two positive ones
    expected = np.array([scipy_nnls(both, spectrum)[0] for spectrum in spectra])
    expected[:, :free_terms] -= expected[:, 12:]
    np.testing.assert_allclose(found, expected[:, :12], rtol=1e-6, atol=1e-6 * spectra.max())
    alone = np.concatenate([problem.solve(right[at : at + 1]) for at in range(len(right))])
    np.testing.assert_allclose(alone, found, rtol=0.0 if compiled else 1e-9, atol=0.0 if compiled else 1e-9)
    assert (found[:, ~free] == 0).any(axis=1).mean() > 0.5, "the bound must matter in this test"


@pytest.mark.parametrize("compiled", [True, False])
def test_nnls_ends_even_where_rounding_errors_keep_it_going(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that look so much alike that `prepare` would refuse them; without an end this test hangs."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    matrix = np.exp(-0.5 * ((np.arange(200)[:, None] - np.linspace(20, 180, 12)) / 40) ** 2)
    spectra = np.random.default_rng(1).poisson(np.maximum(np.random.default_rng(2).normal(0, 4e9, (500, 12)), 0) @ matrix.T)
    found = nnls.Problem(matrix.T @ matrix, np.zeros(12, dtype=bool)).solve(spectra @ matrix)
    assert (found >= 0).all()


@pytest.mark.long
def test_without_a_compiler_the_numbers_are_the_same(
    kernel: Kernel, frames: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    if native.library() is None:
        pytest.skip("there is no C compiler (cc) here")
    some = {name: array[:150] for name, array in frames.items()}
    compiled = kernel(some)
    monkeypatch.setattr(native, "library", lambda: None)
    for name, array in kernel(some).items():
        np.testing.assert_allclose(array, compiled[name], rtol=2e-5, atol=1e-3, err_msg=name)


@pytest.mark.long
def test_made_up_maps_come_back_without_bias_and_with_honest_uncertainties(plain_cfg: pathlib.Path) -> None:
    """Bias of each area <= 0.5 sigma / sqrt(N) on average, pulls with unit variance (5 %), chi2 near 1."""
    fit, rng, count = ready(plain_cfg), np.random.default_rng(4), 4000
    truth = rng.uniform(300, 3000, (count, len(fit.names)))
    expected = truth @ fit.templates[:, -len(fit.names) :].T + 20.0 + 0.01 * np.arange(len(fit.templates))
    spectra = rng.poisson(expected).astype(float)
    found = fit.fit(spectra, spectra)
    pulls = (found.areas - truth) / found.sigmas
    assert np.sqrt(np.mean(np.square(pulls.mean(axis=0) * np.sqrt(count)))) < 1.5, "means of pulls are noise"
    assert np.abs((found.areas - truth).mean(axis=0) / found.sigmas.mean(axis=0)).mean() <= 0.5 * 2 / np.sqrt(count)
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.05)
    assert found.chi2.mean() == pytest.approx(1.0, abs=0.1), "a little more, because the variance is that of the counts"
    components = np.sum(list(fit.components(found.areas).values()), axis=0)
    np.testing.assert_allclose(found.continuum + components, expected.sum(axis=0), rtol=0.01)


@pytest.mark.long
def test_dead_time_widens_the_uncertainty(plain_cfg: pathlib.Path) -> None:
    """The variance of f x counts is f^2 x counts."""
    settings = XrfSettings()
    counts = np.full((1, 1, 1300), 40.0)
    frames = {"spectra": counts, "dead_time_factor": np.array([[2.0]])}
    (block,) = elements.blocks(frames, settings, (0.0, 0.01))
    np.testing.assert_array_equal(block.counts, 2 * counts[:, 0])
    np.testing.assert_array_equal(block.variance, 4 * counts[:, 0])
    once, twice = (run(XRF, frames | {"dead_time_factor": np.array([[f]])}, {}, {"cfg": plain_cfg}) for f in (1.0, 2.0))
    assert twice["sigma/Cu_K"] == pytest.approx(2 * once["sigma/Cu_K"])


@pytest.mark.parametrize("kind", ["u1", "u2", "<u4", ">u4", "i4", "f4", "f8", "u8"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_sum_is_the_formula(kind: str, corrected: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum over the chosen elements of f x counts, and of f^2 x counts; more exposures than a block has."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    rng = np.random.default_rng(6)
    counts = rng.poisson(20.0, (elements.BLOCK + 9, 4, 37))
    counts[3:6, 1] = 0  # an element that does not count needs no factor, one that counts does
    factors = rng.uniform(1.0, 1.3, counts.shape[:2]) if corrected else np.ones(counts.shape[:2])
    factors[4, 1], factors[5, 0] = np.nan, np.nan if corrected else 1.0
    settings = XrfSettings(detectors=[1, 0, 3], dead_time=corrected)
    frames = {"spectra": counts.astype(kind), "dead_time_factor": factors}
    found = [
        (block.counts.copy(), block.variance.copy(), block.live.copy()) for block in elements.blocks(frames, settings, (0.0, 1.0))
    ]
    spectra, variance, live = map(np.concatenate, zip(*found, strict=True))
    np.testing.assert_array_equal(summed(frames, settings), spectra)
    used = np.where(counts.any(axis=2), factors, 0.0)[:, :, None]
    for array, power in ((spectra, 1), (variance, 2)):
        np.testing.assert_allclose(array, (counts * used**power)[:, [0, 1, 3]].sum(axis=1), rtol=5e-7 if corrected else 0.0)
    np.testing.assert_array_equal(live, counts[:, [0, 1, 3]].any(axis=2).sum(axis=1))
    assert np.isnan(spectra[5]).all() == corrected


def test_elements_with_their_own_energy_axis() -> None:
    """A peak stands at the same energy, with the same counts, whatever the gain of the element that saw it."""
    energies = np.arange(1000)[:, None] * np.array([0.010, 0.0125]) + np.array([0.0, 0.05])
    peak = 1e4 * np.exp(-0.5 * ((energies - 6.4) / 0.07) ** 2)
    settings = XrfSettings(dead_time=False, element_energy={1: {"zero": 0.05, "gain": 0.0125}})  # type: ignore[dict-item]
    (block,) = elements.blocks({"spectra": peak.T[None]}, settings, (0.0, 0.010))
    moved = block.counts[0] - peak[:, 0]
    assert moved.sum() == pytest.approx(peak[:, 1].sum(), rel=1e-6)
    assert (moved * energies[:, 0]).sum() / moved.sum() == pytest.approx(6.4, abs=1e-4)
    assert block.live == [2]


@pytest.mark.long
def test_a_dead_element_neither_adds_nor_spoils(cfg: pathlib.Path, frames: dict[str, np.ndarray]) -> None:
    """Three of the four elements of this detector are dead; one of them also has lost its clock."""
    line = {name: array[:20].copy() for name, array in frames.items()}
    line["spectra"][:, 0] = 0
    line["dead_time_factor"][:, 0] = np.nan
    found = run(XRF, line, {}, {"cfg": cfg})
    assert np.isfinite(found["area/Cu_K"]).all()
    assert (found["live_elements"] < 4).all()
    alone = run(XRF, line, {"detectors": [3]}, {"cfg": cfg})
    np.testing.assert_allclose(found["area/Cu_K"], alone["area/Cu_K"], rtol=1e-3)


def test_empty_spectra_are_zeros(kernel: Kernel) -> None:
    found = kernel({"spectra": np.zeros((3, 4, 2048), "u4")})
    assert all((array == 0).all() for name, array in found.items() if name.startswith(("area", "total", "fit/c", "live")))
    assert np.isfinite(found["sigma/Cu_K"]).all()


@pytest.mark.long
def test_mass_fractions_of_steel(steel_cfg: pathlib.Path, test_data: pathlib.Path) -> None:
    """The measured areas of the reference fit times PyMca's factors are the reference's mass fractions."""
    areas = {"Fe Ka": 3072381, "Cr K": 1196002, "Ni K": 512384, "Mn K": 109649}
    expected = {"Fe Ka": 0.6859, "Cr K": 0.3268, "Ni K": 0.1171, "Mn K": 0.0210}
    fit = ready(steel_cfg, mass_fractions=True)
    given = np.array([[areas.get(name, 0.0) for name in fit.names]])
    found = fit.mass_fractions(given)
    for name, fraction in expected.items():
        assert found[name][0] == pytest.approx(fraction, abs=1e-4), name
    assert not {name for name in found if name.startswith("Scatter")}


@pytest.mark.long
def test_mass_fractions_relative_to_an_element(steel_cfg: pathlib.Path, tmp_path: pathlib.Path, test_data: pathlib.Path) -> None:
    relative = tmp_path / "relative.cfg"
    relative.write_text(steel_cfg.read_text().replace("usematrix = 0", "usematrix = 1"))
    fit = ready(relative, mass_fractions=True)
    areas = np.array([[10.0] * len(fit.names), [0.0] * len(fit.names)])
    found = fit.mass_fractions(areas)
    assert fit.names[fit.reference or 0] == "Fe Ka"
    np.testing.assert_allclose(found["Fe Ka"], [fit.fractions[fit.names.index("Fe Ka")], np.nan])
    relative.write_text(relative.read_text().replace("reference = Fe", "reference = Auto"))
    with pytest.raises(BadInput, match=r"reference is auto; name an element, or add calibration\.spectrum"):
        ready(relative, mass_fractions=True)
    calibration = {"cfg": relative, "spectrum": test_data / "xrf" / "Steel.spe"}
    chosen = FastModel(model.prepare(XrfSettings(mass_fractions=True), calibration))
    assert chosen.names[chosen.reference or 0] == "Fe Ka"
    np.testing.assert_allclose(chosen.fractions, fit.fractions)


@pytest.mark.long
def test_the_energy_axis_is_calibrated_with_a_reference_spectrum(cfg: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A spectrum that was made with another gain: the fit finds it."""
    other = tmp_path / "other.cfg"
    other.write_text(cfg.read_text().replace("gain = 0.0100013", "gain = 0.0100400").replace("stripflag = 1", "stripflag = 0"))
    truth = ready(other)
    areas = np.where(np.isin(truth.names, ["Ca K", "Fe K", "Cu K", "Zn K"]), 1e6, 1e3)
    spectrum = np.zeros(1300)
    spectrum[truth.fitted] = truth.templates @ areas
    np.save(tmp_path / "sum.npy", spectrum)
    start = tmp_path / "start.cfg"
    start.write_text(other.read_text().replace("gain = 0.0100400", "gain = 0.0100013"))
    found = FastModel(model.prepare(XrfSettings(calibrate=True), {"cfg": start, "spectrum": tmp_path / "sum.npy"}))
    assert found.axis[1] == pytest.approx(0.01004, rel=2e-5)
    assert found.axis[0] == pytest.approx(truth.axis[0], abs=2e-4)


@pytest.mark.long
def test_weights_are_frozen_by_the_reference_spectrum(
    cfg: pathlib.Path, tmp_path: pathlib.Path, frames: dict[str, np.ndarray]
) -> None:
    with h5py.File(tmp_path / "xrf.h5", "w") as file:
        file["entry/data/spectrum/sum"] = frames["spectra"][:, 3].sum(axis=0)
    settings = {"detectors": [3], "dead_time": False, "weight": 1}
    weighted = XRF.load(settings, {"cfg": cfg, "spectrum": tmp_path / "xrf.h5"})
    whole, line = weighted(frames), weighted({name: array[:101] for name, array in frames.items()})
    np.testing.assert_allclose(line["area/Cr_K"], whole["area/Cr_K"][:101], rtol=1e-9, atol=1e-9)
    plain = XRF.load(settings | {"weight": 0}, {"cfg": cfg})(frames)
    assert whole["area/Cu_K"].sum() == pytest.approx(plain["area/Cu_K"].sum(), rel=0.05)
    assert whole["sigma/P_K"].mean() < plain["sigma/P_K"].mean(), "weights make the small peaks more certain"


@pytest.mark.parametrize(
    ("settings", "content", "sentence"),
    [
        ({"weight": 1}, None, r"weight: 1 needs calibration\.spectrum"),
        ({"calibrate": True}, None, r"calibrate: true needs calibration\.spectrum"),
        ({"weight": 1}, b"$DATA:\n0 3\n1 2 3 4\n", "has 4 channels, but .* xmax is 1250"),
        ({"weight": 1}, b"hello", r"is not a spectrum \(there is no \$DATA:\)"),
        ({"weight": 1}, b"\x89HDF\r\n\x1a\nnonsense", "is not a spectrum"),
        ({"weight": 1}, b"$DATA:\n0 1999\n" + b"0 " * 2000, "all its channels are 0"),
    ],
)
def test_a_bad_reference_spectrum_is_one_sentence(
    cfg: pathlib.Path, tmp_path: pathlib.Path, settings: dict[str, Any], content: bytes | None, sentence: str
) -> None:
    calibration = {"cfg": cfg}
    if content is not None:
        calibration["spectrum"] = tmp_path / "spectrum"
        calibration["spectrum"].write_bytes(content)
    with pytest.raises(BadInput, match=sentence) as caught:
        XRF.load(settings, calibration)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("continuum = 0", "continuum = 5", "continuum is exponential, which is not linear"),
        ("stripfilterwidth = 1", "stripfilterwidth = 5", "the fast engine does not smooth spectra: set it to 1"),
        ("Ga = K", "Ga = K, Ka, Kb", "look alike"),
    ],
)
def test_a_configuration_that_cannot_be_fast_is_one_sentence(
    cfg: pathlib.Path, tmp_path: pathlib.Path, old: str, new: str, sentence: str
) -> None:
    bad, text = tmp_path / "bad.cfg", cfg.read_text()
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=sentence) as caught:
        XRF.load({}, {"cfg": bad})
    assert str(bad) in str(caught.value)


def test_wrong_settings_are_one_sentence(cfg: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="calibrate and mass_fractions need engine: fast"):
        XRF.load({"engine": "pymca", "calibrate": True}, {"cfg": cfg})
    with pytest.raises(BadInput, match="element_energy: there is no element 7; this detector has 0 to 1"):
        summed(
            {"spectra": np.ones((1, 2, 5))},
            XrfSettings(dead_time=False, element_energy={7: {"gain": 0.01}}),  # type: ignore[dict-item]
        )
    with pytest.raises(BadInput, match="gain: Input should be greater than 0"):
        XRF.load({"element_energy": {"0": {"gain": 0}}}, {"cfg": cfg})


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("channels", [5, 37, 48])
def test_the_fit_is_the_formula(count: int, channels: int, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any number of spectra, and channels that fill no whole block, that lie between other channels."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    rng = np.random.default_rng(5)
    matrix = rng.uniform(0.5, 2, (channels, 4)) * (rng.random((channels, 4)) < 0.4)
    matrix[:, 3], matrix[:4, :] = 1.0, np.eye(4) + 0.2
    weights, free = rng.uniform(0.5, 2, channels), np.array([True, False, False, False])
    spectra = rng.poisson(3.0, (count, 60)).astype("f4")[:, 6 : 6 + channels]
    variance = rng.uniform(0, 5, (count, 50)).astype("f4")[:, :channels]
    fit = LinearFit(matrix, weights, free)
    found, variances, chi2 = fit.fit(spectra, variance)
    root = np.sqrt(weights)
    both = np.hstack([matrix, -matrix[:, :1]]) * root[:, None]
    expected = np.array([scipy_nnls(both, spectrum * root)[0] for spectrum in spectra])
    expected[:, 0] -= expected[:, 4]
    np.testing.assert_allclose(found, expected[:, :4], rtol=1e-6, atol=1e-6 * spectra.max())
    np.testing.assert_array_equal(fit.parameters(spectra), found)
    estimator = np.linalg.inv(matrix.T @ (matrix * weights[:, None])) @ (matrix * weights[:, None]).T
    by_hand = [[sum(s * s * v for s, v in zip(row, wide, strict=True)) for row in estimator] for wide in variance]
    np.testing.assert_allclose(variances, by_hand, rtol=1e-5)
    squares = [
        sum((y - sum(x * line)) ** 2 / max(v, 1.0) for y, line, v in zip(row, matrix, wide, strict=True))
        for row, x, wide in zip(spectra, expected[:, :4], variance, strict=True)
    ]
    np.testing.assert_allclose(chi2, squares, rtol=1e-4, atol=1e-5)
    for at in range(count):
        for together, alone in zip((found, variances, chi2), fit.fit(spectra[at : at + 1], variance[at : at + 1]), strict=True):
            np.testing.assert_allclose(alone[0], together[at], rtol=0.0 if compiled else 1e-5, atol=0.0 if compiled else 1e-5)


@pytest.mark.parametrize("kinds", [("u4", "u4"), ("u2", ">u4"), ("i4", "f4")])
def test_detectors_in_separate_datasets_are_summed_by_name(kinds: tuple[str, str]) -> None:
    """Their elements are counted on; what is no count in the type of one is none in the sum."""
    rng = np.random.default_rng(8)
    front, back = rng.poisson(9.0, (5, 2, 30)).astype(kinds[0]), rng.poisson(9.0, (5, 30)).astype(kinds[1])
    front[3, 1, 7] = np.iinfo(kinds[0]).max
    factors = {"front_dead_time_factor": np.full((5, 2), 2.0), "back_dead_time_factor": np.full(5, 3.0)}
    frames = {"front": front, "back": back} | factors
    chosen = XrfSettings(spectra=("front", "back"), detectors=[1, 2])
    found = summed(frames, chosen)
    assert np.isnan(found[3]).all()
    rest = [0, 1, 2, 4]
    np.testing.assert_allclose(found[rest], (2.0 * front[:, 1].astype(float) + 3.0 * back.astype(float))[rest], rtol=1e-6)
    with pytest.raises(BadInput, match="the frames have no 'back_dead_time_factor'"):
        summed({name: array for name, array in frames.items() if name != "back_dead_time_factor"}, chosen)
    with pytest.raises(BadInput, match="'back' has 29 channels, 'front' has 30"):
        summed(frames | {"back": back[:, :29]}, chosen)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("useautotime = 0", "useautotime = 1", "useautotime is on, but spectra bring no time"),
        ("flux = ", "flux = -", r"\[concentrations\] flux is -.*needs a positive number"),
        ("[concentrations]", "[elsewhere]", r"there is no section \[concentrations\]"),
    ],
)
def test_check_and_worker_refuse_the_same_concentrations(
    old: str, new: str, sentence: str, steel_cfg: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    text, bad = steel_cfg.read_text(), tmp_path / "bad.cfg"
    assert old in text
    bad.write_text(text.replace(old, new, 1))
    for ask in (XRF.load, XRF.check):
        with pytest.raises(BadInput, match=sentence):
            ask({"mass_fractions": True}, {"cfg": bad})
    told = XRF.explained({"mass_fractions": True}, {"cfg": bad}, None).wrong
    assert re.search(sentence, told[0])
    XRF.check({}, {"cfg": bad})
