"""Ptychography end to end on simulated scans with a known answer, and on a measured Siemens star."""

import bz2
import pathlib

import numpy as np
import pytest

from beamtide import registry
from cluster_side.modalities.base import checked, run
from cluster_side.modalities.ptychography import quality
from cluster_side.modalities.ptychography.geometry import KEV_M
from tests.ptycho_scans import DETECTOR_PIXEL, DISTANCE, Truth, simulate

PTYCHO = registry.find("modalities", "ptychography")
Datasets = dict[str, np.ndarray]


def solved(truth: Truth, folder: pathlib.Path, **settings: object) -> Datasets:
    """Reconstruct from a wrong probe."""
    start = folder / "start.npy"
    np.save(start, truth.start())
    return dict(run(PTYCHO, truth.arrays(), truth.settings(probe={"kind": "former"}, device="cpu", **settings), {"probe": start}))


def against_truth(truth: Truth, found: Datasets) -> quality.RingCorrelation:
    """Return the ring correlation with the true object, in the middle of the scan."""
    half = truth.probe.shape[-1] // 2
    side = int(np.ptp(truth.positions, axis=0).min()) // 2 * 2 - 4
    origin = int(np.floor(truth.positions.min())) + half
    true = truth.sample[origin : origin + side, origin : origin + side]
    first = [int(np.argmin(np.abs(found[name] / truth.pixel - (origin - half)))) for name in ("object_y", "object_x")]
    ours = found["object"][first[0] : first[0] + side, first[1] : first[1] + side].astype(complex)
    flat = [quality.without_ramp(np.asarray(one))[0] for one in (true, ours)]
    return quality.ring_correlation(flat[0], quality.aligned(flat[0], flat[1]))


@pytest.mark.parametrize(
    ("recipe", "crossing"),
    [
        pytest.param("ePIE(batch 4) 15", 0.22, marks=pytest.mark.long),
        ("rPIE(0.1, batch 4) 15", 0.3),
        pytest.param("DM 25 -> LSQML 10", 0.3, marks=pytest.mark.long),
        ("RAAR(0.85) 25 -> LSQML 10", 0.35),
        pytest.param("LSQML 50", 0.22, marks=pytest.mark.long),
    ],
)
def test_every_engine_finds_the_object(recipe: str, crossing: float, tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8)
    found = solved(truth, tmp_path, recipe=recipe)
    assert found["error"][-1] < 0.03
    assert against_truth(truth, found).crossing > crossing
    assert found["pixel_size"] == pytest.approx(truth.pixel)
    checked(found, PTYCHO.declared(truth.settings()), len(truth.frames))


@pytest.mark.parametrize(("photons", "crossing"), [(1e3, 0.1), (1e4, 0.2), (1e6, 0.33)])
@pytest.mark.long
def test_more_photons_show_more(photons: float, crossing: float, tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8, photons=photons)
    assert against_truth(truth, solved(truth, tmp_path, recipe="RAAR 25 -> LSQML 15")).crossing > crossing


@pytest.mark.long
@pytest.mark.parametrize("modes", [2, 3])
def test_a_mixed_probe_is_taken_apart(modes: int, tmp_path: pathlib.Path) -> None:
    truth = simulate(side=12, modes=modes)
    found = solved(truth, tmp_path, recipe="RAAR 30 -> LSQML 60", modes=modes)
    assert against_truth(truth, found).crossing > 0.35
    power = (np.abs(found["probe"]) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(power / power.sum(), powers(truth), atol=0.03)
    alone = solved(truth, tmp_path, recipe="RAAR 30 -> LSQML 60", modes=1)
    assert alone["error"][-1] > 1.1 * found["error"][-1]  # most of what is left is counting statistics


def powers(truth: Truth) -> np.ndarray:
    """Return the shares of the true probe's orthogonal modes, largest first."""
    flat = truth.probe.reshape(len(truth.probe), -1)
    shares = np.linalg.eigvalsh(flat @ flat.conj().T)[::-1]
    return shares / shares.sum()


@pytest.mark.long
def test_positions_that_are_two_pixels_off_are_found(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=12, photons=1e6, wrong=2.0)
    refine = {"positions_after": 5, "positions_bound": 4}
    found = solved(truth, tmp_path, recipe="RAAR 30 -> LSQML 100", refine=refine)
    refined = np.stack([found["position_y_refined"], found["position_x_refined"]], axis=1) / truth.pixel
    off = refined - truth.positions
    off -= off.mean(axis=0)  # object and positions may move together
    before = truth.measured - truth.positions
    assert np.sqrt((before**2).mean()) > 1.0
    assert np.sqrt((off**2).mean()) < 0.2
    assert np.abs(off).max() < 0.7
    assert found["error"][-1] < 0.2 * solved(truth, tmp_path, recipe="RAAR 30 -> LSQML 100")["error"][-1]


@pytest.mark.long
def test_the_near_field_is_solved_too(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8, fresnel=0.05, photons=1e6)
    source = 0.01
    pixel = DETECTOR_PIXEL * source / (source + DISTANCE)
    distance = DISTANCE * source / (source + DISTANCE)
    energy = 0.05 * KEV_M * distance / pixel**2  # the photon energy that has this Fresnel number
    settings = {
        **truth.settings(recipe="LSQML 40", modes=1, device="cpu", probe={"kind": "former"}),
        "source": source,
        "energy": energy,
    }
    start = tmp_path / "start.npy"
    np.save(start, 1.1 * truth.probe[0])
    found = run(PTYCHO, {"frames": truth.frames, "positions": truth.measured * pixel}, settings, {"probe": start})
    assert found["error"][-1] < 0.01
    assert found["pixel_size"] == pytest.approx(pixel)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_siemens_star(test_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """516 measured frames: Fourier error, and how far two halves of the scan agree."""
    with bz2.open(test_data / "ptychography" / "siemens-star-small.npz.bz2") as file:
        stored = np.load(file)
        frames, scan, probe = stored["data"][0], stored["scan"][0].astype(float), stored["probe"][0, 0, 0, 0]
    start = tmp_path / "probe.npy"
    np.save(start, probe)
    truth = Truth(probe, probe, scan, scan, frames)
    found = solved_from(start, truth, frc=True)
    assert found["error"][-1] <= 0.0195
    crossing = truth.pixel / (2 * found["resolution"][0])
    assert crossing >= 0.23


def solved_from(start: pathlib.Path, truth: Truth, **settings: object) -> Datasets:
    """Reconstruct from a given probe with the default recipe and modes."""
    values = {**truth.settings(probe={"kind": "former"}, device="cpu", **settings)}
    del values["modes"]
    return dict(run(PTYCHO, truth.arrays(), values, {"probe": start}))


@pytest.mark.long
def test_masked_and_saturated_pixels_do_not_count(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8)
    spoilt = truth.frames.copy()
    spoilt[:, 3, 5] = -1
    spoilt[7, 0, 2] = 10**8
    spoilt[:, 20:22, 20:22] = 4000
    mask = np.zeros(truth.frames.shape[1:], bool)
    mask[20:22, 20:22] = True
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "start.npy", truth.start())
    files = {"probe": tmp_path / "start.npy", "mask": tmp_path / "mask.npy"}
    settings = truth.settings(probe={"kind": "former"}, device="cpu", recipe="LSQML 25", saturation=1e7)
    found = run(PTYCHO, {**truth.arrays(), "frames": spoilt}, settings, files)
    clean = solved(truth, tmp_path, recipe="LSQML 25")
    assert found["error"][-1] < 1.1 * clean["error"][-1]


@pytest.mark.long
def test_flux_and_background_are_learned(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8, photons=1e6)
    rng = np.random.default_rng(4)
    factor = rng.uniform(0.7, 1.3, len(truth.frames))
    spoilt = rng.poisson(truth.frames * factor[:, None, None] + 3).astype(np.int32)
    changed = Truth(truth.sample, truth.probe, truth.positions, truth.measured, spoilt)
    plain = solved(changed, tmp_path, recipe="LSQML 40")
    learned = solved(changed, tmp_path, recipe="LSQML 40", refine={"flux": True, "background": True})
    assert learned["error"][-1] < 0.6 * plain["error"][-1]


@pytest.mark.long
def test_a_finer_grid_explains_binned_frames(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8, photons=1e6)
    binned = truth.frames.reshape(-1, 32, 2, 32, 2).sum(axis=(2, 4))
    coarse = Truth(truth.sample, truth.probe, truth.positions, truth.measured, binned)
    np.save(tmp_path / "start.npy", truth.probe[0])
    settings = coarse.settings(probe={"kind": "former"}, device="cpu", recipe="LSQML 40", upsample=2)
    settings["detector_pixel"] = 2 * DETECTOR_PIXEL * 1e6
    found = run(PTYCHO, coarse.arrays(), settings, {"probe": tmp_path / "start.npy"})
    assert found["probe"].shape == (1, 64, 64)
    assert found["error"][-1] < 0.02


def test_supports_hold_and_do_not_spoil_what_is_inside(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8)
    found = solved(truth, tmp_path, recipe="RAAR(0.85) 25 -> LSQML 10", object_radius=26.0, probe_radius=26.0)
    assert against_truth(truth, found).crossing > 0.3
    rows, columns = (found[name] / truth.pixel for name in ("object_y", "object_x"))
    nearest = np.min([np.hypot(rows[:, None] - y, columns[None, :] - x) for y, x in truth.measured], axis=0)
    outside, amplitude = nearest > 27, found["object_amplitude"]
    assert outside.any()
    np.testing.assert_allclose(amplitude[outside], 1.0, atol=1e-4)
    assert np.abs(amplitude[(nearest > 20) & (nearest < 25)] - 1).max() > 0.01, "nothing else is held"
    far = np.hypot(*np.meshgrid(*(np.arange(64) - 32,) * 2)) > 27
    assert not found["probe"][:, far].any()


def test_the_centre_is_found_and_the_frames_are_cut(tmp_path: pathlib.Path) -> None:
    truth = simulate(side=8)
    centred = np.zeros((len(truth.frames), 90, 84), np.int32)
    centred[:, 10:74, 12:76] = np.fft.fftshift(truth.frames, axes=(1, 2))
    settings = truth.settings(probe={"kind": "former"}, device="cpu", recipe="LSQML 25", crop=64) | {"centre": "auto"}
    np.save(tmp_path / "start.npy", truth.start())
    found = run(PTYCHO, {**truth.arrays(), "frames": centred}, settings, {"probe": tmp_path / "start.npy"})
    assert found["error"][-1] < 0.05
