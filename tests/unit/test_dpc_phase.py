"""The phase of a scan: integration against exact gradients, and a simulated scan of a known phase object from frames to phase."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.gridding import places, rotated
from cluster_side.modalities.base import run
from cluster_side.modalities.dpc_phase.integrate import frankot_chellappa, mirrored, without_plane
from cluster_side.modalities.dpc_phase.kernel import HC

PHASE, DPC = registry.find("modalities", "dpc_phase"), registry.find("modalities", "dpc")
ENERGY = 10.0
WAVELENGTH = HC / ENERGY


def hills(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phase (rad) and its gradients (rad/m) at positions in m: two hills and a valley, micrometres wide."""
    phase, gx, gy = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for height, x0, y0, width in ((1.5, -2e-6, 1e-6, 1.5e-6), (1.0, 2e-6, 2e-6, 1.2e-6), (-1.2, 0.5e-6, -2e-6, 1.4e-6)):
        hill = height * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / width**2)
        phase, gx, gy = phase + hill, gx - hill * (x - x0) / width**2, gy - hill * (y - y0) / width**2
    return phase, gx, gy


def scan_frames(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], *, snake: bool = False) -> dict[str, np.ndarray]:
    """What the kernel gets for exact deflections at positions in m."""
    line, column = places(shape, x.size, snake=snake)
    _, gx, gy = hills(x, y)
    scale = WAVELENGTH / 2 / np.pi
    return {
        "dpc/angle_x": gx * scale + 3e-6,  # the beam does not hit the middle of the detector
        "dpc/angle_y": gy * scale - 2e-6,
        "dpc/sum": np.full(x.size, 1e5),
        "encoders/x": x * 1e6,
        "encoders/y": y * 1e6,
        "scan/line": line,
        "scan/column": column,
    }


def flat(truth: np.ndarray, line: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The truth without its plane: what a phase from gradients can be compared with."""
    values = np.zeros((line.max() + 1, column.max() + 1))
    values[line, column] = truth
    return without_plane(values, np.ones(values.shape, bool))[line, column]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    good = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[good], other[good])[0, 1])


def phase_of(frames: dict[str, np.ndarray], **more: object) -> dict[str, np.ndarray]:
    return dict(run(PHASE, frames, {"photon_energy": ENERGY, **more}))


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10**6))
def test_a_sum_of_cosines_is_integrated_exactly(lines: int, columns: int, seed: int) -> None:
    """Cosines that fit the mirrored map are what the transform is made of: exact to rounding."""
    random = np.random.default_rng(seed)
    line, column = np.indices((lines, columns))
    truth, gx, gy = (np.zeros((lines, columns)) for _ in range(3))
    for _ in range(4):
        m, n, height = random.integers(0, lines), random.integers(0, columns), random.normal()
        u, v = np.pi * m / lines, np.pi * n / columns
        truth += height * np.cos(u * (line + 0.5)) * np.cos(v * (column + 0.5))
        gx -= height * v * np.cos(u * (line + 0.5)) * np.sin(v * (column + 0.5))
        gy -= height * u * np.sin(u * (line + 0.5)) * np.cos(v * (column + 0.5))
    np.testing.assert_allclose(frankot_chellappa(gx, gy), truth - truth.mean(), atol=1e-9)


def test_a_ramp_does_not_wrap_around() -> None:
    found = frankot_chellappa(np.full((20, 30), 0.3), np.zeros((20, 30)))
    ramp = 0.3 * np.broadcast_to(np.arange(30), (20, 30))
    assert correlation(found, ramp) > 0.99
    assert np.ptp(found) > 0.9 * np.ptp(ramp)
    np.testing.assert_array_equal(mirrored(np.array([[1.0, 2.0]]), odd_axis=1), [[1, 2, -2, -1]] * 2)


def test_a_plane_is_taken_off_where_something_was_measured() -> None:
    line, column = np.indices((5, 7))
    bump = np.zeros((5, 7))
    bump[2, 2] = 100.0
    known = bump == 0
    found = without_plane(3.0 + 2.0 * line - column + bump, known)
    np.testing.assert_allclose(found, bump, atol=1e-9)


def test_holes_are_refused_by_the_integration() -> None:
    with pytest.raises(BadInput, match="known everywhere"):
        frankot_chellappa(np.full((2, 2), np.nan), np.zeros((2, 2)))


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 180.0])
@pytest.mark.parametrize("snake", [False, True])
def test_the_phase_is_found_in_any_raster(degrees: float, snake: bool) -> None:
    shape = (31, 45)
    line, column = places(shape, 31 * 45, snake=snake)
    x, y = rotated((column - 22) * 0.25e-6, (line - 15) * 0.4e-6, degrees)
    frames = scan_frames(x, y, shape, snake=snake)
    found = phase_of(frames)
    truth, gx, _ = hills(x, y)
    assert correlation(found["phase"], flat(truth, line, column)) > 0.999
    np.testing.assert_allclose(found["gradient_x"] - np.median(found["gradient_x"]), gx - np.median(gx), atol=1.0)
    assert np.ptp(found["phase"]) == pytest.approx(np.ptp(flat(truth, line, column)), rel=0.02)
    assert not found["flags/phase"].any()
    np.testing.assert_allclose(found["absorption"], 0.0)


def test_missing_points_stay_missing_and_do_not_spoil_the_rest() -> None:
    line, column = places((31, 45), 31 * 45)
    x, y = (column - 22) * 0.25e-6, (line - 15) * 0.4e-6
    frames = scan_frames(x, y, (31, 45))
    lost = np.random.default_rng(1).random(x.size) < 0.05
    for name in ("dpc/angle_x", "dpc/angle_y", "dpc/sum"):
        frames[name][lost] = np.nan
    frames["encoders/x"][17] = np.nan
    lost[17] = True
    found = phase_of(frames)
    np.testing.assert_array_equal(np.isnan(found["phase"]), lost)
    np.testing.assert_array_equal(found["flags/phase"] & 1, lost)
    np.testing.assert_array_equal(found["flags/phase"] & 4, 4 * np.isnan(found["absorption"]))
    assert correlation(found["phase"], flat(hills(x, y)[0], line, column)) > 0.99


def test_a_scan_of_a_known_object_from_frames_to_phase() -> None:
    """A Gaussian beam of 0.6 um looks at two hills and a valley; photons are counted; then dpc and dpc_phase."""
    size, pixel, distance = 64, 60e-9, 2.0
    fine = (np.arange(size) - size // 2) * pixel
    probe = np.exp(-(fine[None, :] ** 2 + fine[:, None] ** 2) / 2 / (0.3e-6) ** 2)
    shape = (22, 26)
    line, column = places(shape, 22 * 26)
    x, y = (column - 12.5) * 0.4e-6, (line - 10.5) * 0.4e-6
    random, patterns = np.random.default_rng(7), []
    for at_x, at_y in zip(x, y, strict=True):
        phase = hills(at_x + fine[None, :] + 0 * fine[:, None], at_y + fine[:, None] + 0 * fine[None, :])[0]
        pattern = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe * np.exp(1j * phase))))) ** 2
        patterns.append(random.poisson(2e5 * pattern / pattern.sum()))
    geometry = {"pixel_size": WAVELENGTH * distance / size / pixel, "distance": distance}
    moments = dict(run(DPC, {"frames": np.array(patterns, "u4")}, {"geometry": geometry}))
    frames = scan_frames(x, y, shape) | {f"dpc/{name}": moments[name] for name in ("angle_x", "angle_y", "sum")}
    found = phase_of(frames)
    assert correlation(found["phase"], flat(hills(x, y)[0], line, column)) >= 0.98


def test_an_empty_region_is_the_reference_and_must_hold_a_point() -> None:
    line, column = places((31, 45), 31 * 45)
    x, y = (column - 22) * 0.25e-6, (line - 15) * 0.4e-6
    frames = scan_frames(x, y, (31, 45))
    frames["dpc/sum"] = np.where(x > 5e-6, 1e5, 5e4)
    found = phase_of(frames, reference={"x": [5.2, 9.0], "y": [-9.0, 9.0]})
    np.testing.assert_allclose(found["absorption"], np.where(x > 5e-6, 0.0, np.log(2)), atol=1e-12)
    with pytest.raises(BadInput, match=r"no point of the scan lies in x 50\.0 to 60\.0"):
        phase_of(frames, reference={"x": [50.0, 60.0], "y": [-9.0, 9.0]})


def test_the_beam_monitor_takes_its_part_and_zero_is_no_monitor() -> None:
    line, column = places((5, 6), 30)
    frames = scan_frames(column * 1e-6, line * 1e-6, (5, 6))
    i0 = np.linspace(1, 2, 30)
    frames |= {"dpc/sum": 1e5 * i0, "counters/i0": i0.copy()}
    frames["counters/i0"][3] = 0.0
    found = phase_of(frames, i0="counters/i0")
    assert np.isnan(found["absorption"][3])
    assert np.flatnonzero(found["flags/phase"] & 4).tolist() == [3]
    np.testing.assert_allclose(np.delete(found["absorption"], 3), 0.0, atol=1e-12)


def test_positions_that_are_no_raster_are_flagged_and_without_the_scan_there_is_no_phase() -> None:
    line, column = places((6, 7), 42)
    frames = scan_frames(column * 1e-6, line * 1e-6, (6, 7))
    frames["encoders/x"] = np.random.default_rng(0).permutation(frames["encoders/x"])
    assert (phase_of(frames)["flags/phase"] == 2).all()
    with pytest.raises(BadInput, match=r"set source: \{kind: scan\}"):
        phase_of({name: array for name, array in frames.items() if not name.startswith("scan/")})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"photon_energy": None}, "photon_energy"),
        ({"position_units": "deg"}, "'deg' is no unit of length"),
        ({"angle_x": "angle"}, "angle_x: .*pattern"),
        ({"reference": {"x": [2, 1], "y": [0, 1]}}, "low below high"),
    ],
)
def test_wrong_settings_are_one_sentence(values: dict[str, object], sentence: str) -> None:
    line, column = places((2, 2), 4)
    with pytest.raises(BadInput, match=sentence):
        phase_of(scan_frames(column * 1e-6, line * 1e-6, (2, 2)), **values)
