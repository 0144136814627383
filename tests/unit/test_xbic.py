"""XBIC and XBIV: simulated lock-in maps with a known current, from X/Y and from R/theta, with offset and noise."""

import cmath
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities.base import run

XBIC = registry.find("modalities", "xbic")
CHOPPED = math.pi / math.sqrt(2)
XY = {
    "units": "A",
    "x": "X",
    "y": "Y",
    "dark": [0.31, -0.12],
    "sensitivity": 0.05,
    "full_scale": 10.0,
    "preamp_gain": 1e6,
    "chopper_factor": CHOPPED,
    "phase": 37.0,
}
SCALE = 0.05 / 10 / 1e6 * CHOPPED


def xbic(frames: dict[str, np.ndarray], values: dict[str, object]) -> dict[str, np.ndarray]:
    return dict(run(XBIC, frames, values))


def lock_in(current: np.ndarray, noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """What the amplifier puts out for these currents (A): X and Y in V, with offset, phase 37 degrees and noise."""
    random = np.random.default_rng(seed)
    z = current / SCALE * cmath.exp(1j * math.radians(37.0)) + complex(0.31, -0.12)
    noisy = z + noise * (random.normal(size=z.shape) + 1j * random.normal(size=z.shape))
    return {"X": noisy.real, "Y": noisy.imag, "R": np.abs(noisy), "T": np.degrees(np.angle(noisy))}


def a_map() -> np.ndarray:
    """Current of a solar cell with a dead grain and one that collects backwards, 40 x 50, in A."""
    y, x = np.mgrid[:40, :50]
    current = 20e-9 * (1 + 0.3 * np.sin(x / 5) * np.cos(y / 7))
    current[10:20, 10:25] = 0.0
    current[30:35, 30:40] *= -1
    return current.ravel()


@pytest.mark.parametrize(
    "columns", [{"x": "X", "y": "Y"}, {"x": None, "y": None, "r": "R", "theta": "T"}], ids=["X, Y", "R, theta"]
)
def test_the_current_of_a_noisy_map_is_found_within_three_sigma(columns: dict[str, object]) -> None:
    noise, truth = 0.02, a_map()
    found = xbic(lock_in(truth, noise), XY | columns)
    off = found["signal"] - truth
    assert (np.abs(off) < 3 * noise * SCALE).mean() > 0.99
    assert np.abs(off.mean()) < 3 * noise * SCALE / math.sqrt(truth.size)
    assert off.std() == pytest.approx(noise * SCALE, rel=0.05)


def test_the_signed_signal_of_nothing_is_nothing_where_the_magnitude_is_biased() -> None:
    """R of noise alone is sigma sqrt(pi / 2) on average; the projection is 0."""
    noise = 0.02
    found = xbic(lock_in(np.zeros(20000), noise), XY)
    assert found["r"].mean() == pytest.approx(noise * SCALE * math.sqrt(math.pi / 2), rel=0.02)
    assert abs(found["signal"].mean()) < 3 * noise * SCALE / math.sqrt(20000)
    biased = xbic(lock_in(np.zeros(10), 0.0), XY | {"dark": [0.0, 0.0]})
    assert biased["r"][0] == pytest.approx(math.hypot(0.31, 0.12) * SCALE), "the offset is complex and must go before R"


def test_the_median_phase_of_a_scan_is_the_phase_of_its_signal() -> None:
    truth = a_map()
    frames = lock_in(truth, 0.02) | {"scan/line": np.zeros(truth.size, int)}
    found = xbic(frames, XY | {"phase": "median"})
    assert np.corrcoef(found["signal"], truth)[0, 1] > 0.99
    np.testing.assert_allclose(found["signal"], xbic(lock_in(truth, 0.02), XY)["signal"], atol=0.02 * truth.max())
    nothing = {name: np.full(3, np.nan) for name in ("X", "Y", "scan/line")}
    assert np.isnan(xbic(nothing, XY | {"phase": "median"})["signal"]).all()


@given(
    st.floats(1e-6, 1.0),
    st.floats(0.1, 20),
    st.floats(1.0, 1e9),
    st.floats(0.5, 3),
    st.floats(-180, 180),
    st.floats(-9, 9),
    st.floats(-9, 9),
)
def test_one_reading_is_its_formula(
    sensitivity: float, full_scale: float, gain: float, chopper: float, phase: float, x: float, y: float
) -> None:
    values = {
        "units": "nA",
        "x": "X",
        "y": "Y",
        "dark": [1.0, -2.0],
        "sensitivity": sensitivity,
        "full_scale": full_scale,
        "preamp_gain": gain,
        "chopper_factor": chopper,
        "phase": phase,
        "overload": 10.0,
    }
    found = xbic({"X": np.array([x]), "Y": np.array([y])}, values)
    z = complex(x - 1.0, y + 2.0) * sensitivity / full_scale / gain * chopper * 1e9
    size = abs(z)
    assert found["signal"][0] == pytest.approx((z * cmath.exp(-1j * math.radians(phase))).real, abs=1e-9 * size + 1e-300)
    assert found["r"][0] == pytest.approx(size)
    assert found["x"][0] == pytest.approx(z.real, abs=1e-12 * size)
    assert size == 0 or found["theta"][0] == pytest.approx(math.degrees(cmath.phase(z)), abs=1e-9)


def test_what_is_wrong_with_a_point_is_a_flag() -> None:
    frames = {
        "X": np.array([1.0, 10.0, np.nan, 1.0, 1.0]),
        "Y": np.array([1.0, 1.0, 1.0, -10.5, 1.0]),
        "dwell": np.array([0.1, 0.1, 0.1, 0.1, 0.02]),
        "counters/i0": np.array([2.0, 2.0, 2.0, 2.0, 0.0]),
    }
    extra = {"time_constant": 0.01, "exposure": "dwell", "normalise_to": "counters/i0", "normalise_reference": 4.0, "dark": None}
    found = xbic(frames, XY | extra)
    np.testing.assert_array_equal(found["flags/signal"], [8, 8 + 2, 8 + 1, 8 + 2, 8 + 4 + 16])
    np.testing.assert_array_equal(np.isnan(found["signal"]), [False, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(found["normalised"]), [False, True, True, True, True])
    assert found["normalised"][0] == pytest.approx(2.0 * found["signal"][0])


def test_overload_everywhere_leaves_no_number() -> None:
    found = xbic({"X": np.full(4, 10.0), "Y": np.zeros(4)}, XY)
    assert np.isnan(found["signal"]).all()
    assert (found["flags/signal"] == 2).all()


def test_a_perfect_cell_has_a_quantum_efficiency_of_one() -> None:
    """By hand: 1e9 photons/s of 10 keV, half absorbed, 5 eV per pair -> 1e12 pairs/s -> 160.2 nA."""
    truth = np.array([1e12 * 1.602176634e-19, 0.0])
    efficiency = {"flux": "counters/flux", "photon_energy": 10.0, "absorbed": 0.5, "pair_energy": 5.0}
    found = xbic(lock_in(truth) | {"counters/flux": np.array([1e9, 0.0])}, XY | {"efficiency": efficiency, "overload": 100.0})
    np.testing.assert_allclose(found["efficiency"], [1.0, np.nan])
    assert (found["flags/signal"] & 32).tolist() == [0, 32]


def test_sensitivity_may_change_from_line_to_line_and_voltages_are_not_divided_by_a_current_gain() -> None:
    values = XY | {"units": "uV", "sensitivity": "range", "preamp_gain": 1.0, "chopper_factor": 1.0, "phase": 0.0, "dark": [0, 0]}
    found = xbic({"X": np.array([5.0, 5.0]), "Y": np.zeros(2), "range": np.array([1e-3, 2e-3])}, values)
    np.testing.assert_allclose(found["signal"], [500.0, 1000.0])
    assert {one.units for one in XBIC.declared(values) if one.name in ("signal", "x", "r")} == {"uV"}


@pytest.mark.parametrize("tasks", [7, 50])
def test_a_cut_into_tasks_changes_no_bit(tasks: int) -> None:
    frames = lock_in(a_map(), 0.02)
    whole = xbic(frames, XY)
    cuts = [np.array_split(array, tasks) for array in frames.values()]
    parts = [xbic(dict(zip(frames, cut, strict=True)), XY) for cut in zip(*cuts, strict=True)]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected, strict=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"units": "um"}, "'um' is no unit of current or voltage"),
        ({"y": None}, "give the columns x and y, or r and theta"),
        ({"r": "R", "theta": "T"}, "give the columns x and y, or r and theta"),
        ({"sensitivity": 0.0}, "sensitivity"),
        ({"time_constant": 0.1}, "time_constant and exposure go together"),
        ({"normalise_to": "counters/i0"}, "go together"),
        (
            {"units": "V", "efficiency": {"flux": 1.0, "photon_energy": 1.0, "absorbed": 1.0, "pair_energy": 1.0}},
            "only a current",
        ),
        ({"phase": "median"}, "needs all points at once: set source: {kind: scan}"),
        ({"dark": ["A", "B"]}, "no column 'A', only X, Y"),
    ],
)
def test_wrong_settings_are_one_sentence(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        xbic({"X": np.zeros(3), "Y": np.zeros(3)}, XY | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["phase", "sensitivity", "full_scale", "preamp_gain", "chopper_factor", "units"])
def test_what_makes_the_scale_must_be_said(missing: str) -> None:
    with pytest.raises(BadInput, match=f"{missing}: Field required"):
        xbic({"X": np.zeros(3), "Y": np.zeros(3)}, {name: value for name, value in XY.items() if name != missing})
