"""Encoders: known counts give known positions; what an author's test harness refuses."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamtide import registry
from beamtide import registry as plugins
from beamtide.errors import BadInput
from cluster_side.modalities.base import Output, checked, run

ENCODERS = registry.find("modalities", "encoders")
UV = {"u": {"field": "c1"}, "v": {"field": "c1"}, "r": {"field": "c1", "units": "deg"}}
AXES = {"x": {"field": "c1", "resolution": 0.5, "sign": -1, "offset": 10.0}}


def test_counts_times_resolution_and_sign_plus_offset() -> None:
    found = run(ENCODERS, {"c1": np.array([0, 1, 4], "i4")}, {"axes": AXES})
    np.testing.assert_array_equal(found["x"], [10.0, 9.5, 8.0])
    assert found["x"].dtype == np.float64
    assert "x_std" not in found


def test_samples_within_an_exposure_give_mean_and_deviation_and_a_lost_trigger_stays_nan() -> None:
    counts = np.array([[0.0, 4.0], [np.nan, 1.0]])
    found = run(
        ENCODERS, {"c1": counts, "i": counts}, {"axes": AXES, "extra": {"i0": {"field": "i", "units": "A", "scale": 1e-9}}}
    )
    np.testing.assert_array_equal(found["x"], [9.0, np.nan])
    np.testing.assert_array_equal(found["x_std"], [1.0, np.nan])
    np.testing.assert_array_equal(found["i0"], [2e-9, np.nan])


def test_datasets_carry_units() -> None:
    values = {"axes": AXES | {"rotation": {"field": "c2", "units": "deg"}}, "extra": {"i0": {"field": "i", "units": "A"}}}
    headers = checked({"x": np.zeros(2), "rotation": np.zeros(2), "i0": np.zeros(2)}, ENCODERS.declared(values), 2)
    assert [(one.name, one.units, one.per) for one in headers] == [
        ("x", "um", "index"),
        ("rotation", "deg", "index"),
        ("i0", "A", "index"),
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "axes: Field required"),
        ({"axes": {}}, "at least 1 item"),
        ({"axes": {"x": {"field": "c1", "resolution": 0}}}, r"axes\.x\.resolution: .*greater than 0"),
        ({"axes": {"x": {"field": "c1", "typo": 1}}}, r"axes\.x\.typo: Extra inputs"),
        ({"axes": {"../x": {"field": "c1"}}}, "pattern"),
        ({"axes": AXES, "extra": {"x_std": {"field": "c1", "units": "um"}}}, "bears the name of an axis"),
        ({"axes": {"x": {"field": "c9"}}}, "no column 'c9', only c1; correct"),
        ({"axes": {"x": {"field": "c1", "units": "furlong"}}}, r"axes\.x\.units: .*'furlong' is no unit of length or angle; use"),
        ({"axes": {"x": {"field": "c1", "units": "A"}}}, "'A' is no unit of length"),
        ({"axes": UV, "lab": {"axes": ["u", "v"]}}, r"lab\.angle.*: Field required"),
        ({"axes": UV, "lab": {"axes": ["u", "w"], "angle": 1.0}}, "no axis 'w'; axes are u, v, r"),
        ({"axes": UV, "lab": {"axes": ["u", "u"], "angle": 1.0}}, "two different ones"),
        ({"axes": UV, "lab": {"axes": ["u", "v"], "angle": "u"}}, "u must be one of the axes, and measured in degrees"),
        ({"axes": UV | AXES, "lab": {"axes": ["u", "v"], "angle": 1.0}}, "x is an axis already"),
    ],
)
def test_wrong_settings_are_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        run(ENCODERS, {"c1": np.zeros(3)}, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "output", "sentence"),
    [
        (np.zeros(2), Output("a", "um"), r"shape \(2,\) for 3 indexes"),
        (np.array(1.0), Output("a", "um"), r"shape \(\) for 3 indexes"),
        (np.array(["x"] * 3), Output("a", "um"), "holds numbers"),
        (np.zeros(3), Output("a", "um", per="scan"), "rows belong to indexes only"),
        (np.zeros(3), Output("b", "um"), "does not declare"),
        (np.zeros((3, 0)), Output("a", "um"), "no number for any index"),
        ([1.0, 2.0, 3.0], Output("a", "um"), "is list, not an array"),
    ],
)
def test_an_output_that_breaks_its_declaration_is_refused(array: np.ndarray, output: Output, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        checked({"a": array}, (output,), 3)


def test_a_kernel_that_returns_no_mapping_is_refused() -> None:
    with pytest.raises(BadInput, match="the kernel returned ndarray, not a mapping of names to arrays"):
        checked(np.zeros(3), (), 3)  # type: ignore[arg-type]


def test_the_measured_scan_has_the_pitch_that_was_asked_for(test_data: pathlib.Path) -> None:
    panda = plugins.find("formats", "nanomax_panda")
    frames = panda.read(test_data / "positions" / "nanomax_000008.h5", 0, 1111, {})
    axes = {"x": {"field": "INENC2.VAL_Mean"}, "y": {"field": "INENC3.VAL_Mean"}}
    found = run(ENCODERS, frames, {"axes": axes, "extra": {"i0": {"field": "alba2/1", "units": "A"}}})
    x, y = found["x"].reshape(11, 101), found["y"].reshape(11, 101)
    assert np.diff(x, axis=1).mean() == pytest.approx(0.200, abs=0.001)
    assert np.diff(y, axis=0).mean() == pytest.approx(2.0, abs=0.01)
    assert (found["i0"] > 0).all()


@given(st.integers(4, 48), st.integers(-(2**20), 2**20), st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=20))
def test_wrapped_counters_are_unwrapped_as_a_walk_from_the_middle(bits: int, middle: int, walk: list[int]) -> None:
    half = 2 ** (bits - 1)
    truth = [middle + step % half for step in walk]  # within half a range of the middle
    raw = np.array([value % 2**bits for value in truth], float)
    axis = {"field": "c", "bits": bits, "resolution": 0.5, "sign": -1, "offset": 7.0, "near": -0.5 * middle + 7.0}
    found = run(ENCODERS, {"c": raw}, {"axes": {"x": axis}})
    np.testing.assert_array_equal(found["x"], [-0.5 * value + 7.0 for value in truth])


def test_a_counter_that_wraps_within_an_exposure_and_one_that_leaves_its_range() -> None:
    counts = np.array([[250.0, 254.0, 2.0], [120.0, 127.0, 130.0]])  # 8 bits: -6, -2, 2, and beyond +127
    found = run(ENCODERS, {"c": counts}, {"axes": {"x": {"field": "c", "bits": 8}}})
    assert found["x"][0] == -2.0
    np.testing.assert_array_equal(found["flags/x"], [0, 4])


def test_a_spike_is_left_out_and_flagged_and_a_lost_trigger_says_so() -> None:
    counts = np.array([[1.0, 1.1, 0.9, 900.0, 1.05, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [np.nan] * 6])
    found = run(ENCODERS, {"c": counts}, {"axes": {"x": {"field": "c", "spike": 5}}})
    np.testing.assert_allclose(found["x"], [1.01, 3.5, np.nan])
    np.testing.assert_allclose(found["x_std"][:2], [np.std([1.0, 1.1, 0.9, 1.05, 1.0]), counts[1].std()])
    np.testing.assert_allclose([found["x_min"][:2], found["x_max"][:2]], [[0.9, 1.0], [1.1, 6.0]])
    np.testing.assert_array_equal(found["flags/x"], [2, 0, 1])


@given(st.floats(-180, 180), st.floats(-30, 30), st.integers(0, 1000))
def test_the_laboratory_frame_is_p06s_formula_after_the_skew(angle: float, skew: float, seed: int) -> None:
    u, v = np.random.default_rng(seed).normal(size=(2, 6))
    frames = {"c2": v, "c3": u, "c1": np.full(6, angle)}
    axes = {"r": {"field": "c1", "units": "deg"}, "u": {"field": "c3"}, "v": {"field": "c2"}}
    measured = run(ENCODERS, frames, {"axes": axes, "lab": {"axes": ["u", "v"], "angle": "r", "skew": skew}})
    fixed = run(ENCODERS, frames, {"axes": axes, "lab": {"axes": ["u", "v"], "angle": angle, "skew": skew}})
    r, s = np.radians(angle), np.radians(skew)
    straight_u, straight_v = u + np.sin(s) * v, np.cos(s) * v
    np.testing.assert_allclose(measured["x"], np.sin(r) * straight_v + np.cos(r) * straight_u, atol=1e-12)
    np.testing.assert_allclose(measured["y"], np.cos(r) * straight_v - np.sin(r) * straight_u, atol=1e-12)
    np.testing.assert_array_equal([fixed["x"], fixed["y"]], [measured["x"], measured["y"]])


def test_without_a_known_angle_there_is_no_position() -> None:
    axes = {"r": {"field": "c1", "units": "mrad"}, "u": {"field": "c3"}, "v": {"field": "c2"}}
    frames = {"c1": np.array([0.0, np.nan]), "c2": np.ones(2), "c3": np.ones(2)}
    found = run(ENCODERS, frames, {"axes": axes, "lab": {"axes": ["u", "v"], "angle": "r"}})
    np.testing.assert_array_equal(found["x"], [1.0, np.nan])
    np.testing.assert_array_equal(found["flags/r"], [0, 1])


def test_a_spike_among_single_values_cannot_be_found_and_that_is_said() -> None:
    axes = {"x": {"field": "c", "spike": 5}}
    assert (run(ENCODERS, {"c": np.array([1.0, 2.0, 900.0])}, {"axes": axes})["flags/x"] == 8).all()
    assert not run(ENCODERS, {"c": np.ones((3, 8))}, {"axes": axes})["flags/x"].any()


@pytest.mark.parametrize("tasks", [7, 50])
def test_a_cut_into_tasks_changes_no_bit(tasks: int) -> None:
    counts = np.random.default_rng(3).integers(0, 2**16, (211, 8)).astype(float)
    counts[17, 3] = np.nan
    axes = {
        "u": {"field": "c", "bits": 16, "spike": 5, "resolution": 0.01},
        "v": {"field": "c"},
        "r": {"field": "c", "units": "deg"},
    }
    values = {"axes": axes, "lab": {"axes": ["u", "v"], "angle": "r", "skew": 1.0}, "extra": {"i0": {"field": "c", "units": "A"}}}
    whole = run(ENCODERS, {"c": counts}, values)
    parts = [run(ENCODERS, {"c": part}, values) for part in np.array_split(counts, tasks)]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected, strict=True)


def test_the_measured_scan_keeps_its_time_and_its_analogue_read_back(test_data: pathlib.Path) -> None:
    """50.95 ms period, 50 ms gates, 11 returns; x encoder against the analogue read-back: 0.2 % in scale."""
    panda = plugins.find("formats", "nanomax_panda")
    frames = panda.read(test_data / "positions" / "nanomax_000008.h5", 0, 1111, {})
    axes = {
        "x": {"field": "INENC2.VAL_Mean"},
        "analogue": {"field": "FMC_IN.VAL2_Mean", "resolution": 5.0, "sign": -1},
    }
    times = {name: {"field": f"PCAP.TS_{name.upper()}_Value", "units": "s"} for name in ("start", "end", "trig")}
    found = run(ENCODERS, frames, {"axes": axes, "extra": times})
    gate, period = found["end"] - found["start"], np.diff(found["trig"].reshape(11, 101), axis=1)
    np.testing.assert_allclose(gate, 0.05, atol=1e-6)
    assert np.median(period) == pytest.approx(0.05095, abs=2e-6)
    assert (np.diff(found["trig"]) < 0).sum() == 10, "time stamps restart with every line"
    scale, _ = np.polyfit(found["analogue"], found["x"], 1)
    assert scale == pytest.approx(1.0, abs=0.004)
    assert np.corrcoef(found["analogue"], found["x"])[0, 1] > 0.99999
    assert not found["flags/x"].any()
