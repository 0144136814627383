"""Counters: dark, gain, dead time, overload and rates against the formula by hand; the beam position; measured currents."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamtide import registry
from beamtide import registry as plugins
from beamtide.errors import BadInput
from cluster_side.modalities.base import run

COUNTERS = registry.find("modalities", "counters")


def counters(frames: dict[str, np.ndarray], values: dict[str, object]) -> dict[str, np.ndarray]:
    return dict(run(COUNTERS, frames, values))


@given(st.floats(0, 1e5), st.floats(-1e3, 1e3), st.floats(1e-9, 10), st.floats(1e-3, 10), st.floats(1e-9, 1e-7))
def test_one_counter_is_its_formula(raw: float, dark: float, gain: float, seconds: float, dead_time: float) -> None:
    one = {"field": "c", "units": "1/s", "dark": dark, "gain": gain, "dead_time": dead_time, "rate": True}
    found = counters({"c": np.array([raw]), "t": np.array([seconds])}, {"counters": {"a": one}, "exposure": "t"})
    alive = 1 - raw * dead_time / seconds
    if alive <= 0:
        assert np.isnan(found["a"][0])
        assert found["flags/a"][0] == 4
    else:
        assert found["a"][0] == pytest.approx((raw / alive - dark) * gain / seconds, rel=1e-12, abs=1e-12)
        assert found["flags/a"][0] == 0


def test_a_counter_that_is_dead_a_third_of_the_time_missed_a_third() -> None:
    """By hand: 1e6 events/s at 500 ns are seen as 1e6 / (1 + 0.5) = 666,667/s."""
    one = {"field": "c", "units": "counts", "dark": 0, "dead_time": 500e-9}
    found = counters({"c": np.array([1e6 / 1.5])}, {"counters": {"a": one}, "exposure": 1.0})
    assert found["a"][0] == pytest.approx(1e6)


def test_what_is_wrong_with_a_reading_is_a_flag_and_never_a_number() -> None:
    frames = {
        "adc": np.array([1.0, np.nan, 10.0, -10.0, 2.0]),
        "i0": np.array([2.0, 2.0, 2.0, 2.0, 0.0]),
        "t": np.array([0.1, 0.1, 0.1, 0.1, 0.1]),
    }
    values = {
        "counters": {
            "a": {"field": "adc", "units": "A", "overload": 9.9, "gain": 1e-9, "normalise_to": "i0", "dark": 0.5},
            "i0": {"field": "i0", "units": "A"},
        }
    }
    found = counters(frames, values)
    np.testing.assert_allclose(found["a"], [0.25e-9, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found["flags/a"], [0, 1, 2, 2, 16])
    np.testing.assert_array_equal(found["flags/i0"], [8] * 5, "no dark level was given")


def test_overload_everywhere_leaves_no_number() -> None:
    found = counters({"c": np.full((4, 3), 11.0)}, {"counters": {"a": {"field": "c", "units": "V", "dark": 0, "overload": 10}}})
    assert np.isnan(found["a"]).all()
    assert (found["flags/a"] == 2).all()


def test_an_exposure_of_zero_gives_no_rate() -> None:
    one = {"field": "c", "units": "1/s", "dark": 0, "rate": True}
    found = counters({"c": np.array([5.0, 5.0]), "t": np.array([0.0, 0.1])}, {"counters": {"a": one}, "exposure": "t"})
    np.testing.assert_allclose(found["a"], [np.nan, 50.0])
    np.testing.assert_array_equal(found["flags/a"], [1, 0])


@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(0.01, 100))
def test_the_beam_position_of_four_quadrants(x: float, y: float, flux: float) -> None:
    names = {"a": (-1, 1), "b": (1, 1), "c": (1, -1), "d": (-1, -1)}
    frames = {name: np.array([flux * (1 + sx * x) * (1 + sy * y) / 4]) for name, (sx, sy) in names.items()}
    beam = {"left": ["a", "d"], "right": ["b", "c"], "bottom": ["c", "d"], "top": ["a", "b"], "scale_x": 10.0, "scale_y": -5.0}
    declared = {name: {"field": name, "units": "A", "dark": 0} for name in names}
    found = counters(frames, {"counters": declared, "beam": beam})
    np.testing.assert_allclose([found["beam_x"][0], found["beam_y"][0]], [10 * x, -5 * y], atol=1e-9)
    assert found["beam_sum"][0] == pytest.approx(flux)


@pytest.mark.parametrize("tasks", [7, 50])
def test_a_cut_into_tasks_changes_no_bit(tasks: int) -> None:
    random = np.random.default_rng(2)
    frames = {"c": random.poisson(1e4, (200, 3)), "t": random.uniform(0.1, 0.2, 200)}
    one = {"field": "c", "units": "1/s", "dark": 3.0, "rate": True, "dead_time": 1e-7, "normalise_to": "b"}
    values = {"counters": {"a": one, "b": {"field": "c", "units": "counts"}}, "exposure": "t"}
    whole = counters(frames, values)
    cuts = [np.array_split(array, tasks) for array in frames.values()]
    parts = [counters(dict(zip(frames, cut, strict=True)), values) for cut in zip(*cuts, strict=True)]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected, strict=True)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"counters": {}}, "at least 1 item"),
        ({"counters": {"a": {"field": "c"}}}, r"counters\.a\.units: Field required"),
        ({"counters": {"a": {"field": "c", "units": "1/s", "rate": True}}}, r"counters\.a: rate and dead_time need `exposure`"),
        ({"counters": {"a": {"field": "c", "units": "A", "normalise_to": "b"}}}, "no counter 'b'"),
        ({"counters": {"a": {"field": "z", "units": "A"}}}, "no column 'z', only c"),
        ({"counters": {"a": {"field": "c", "units": "A", "dark": "z"}}}, "no column 'z', only c"),
        ({"counters": {"a": {"field": "c", "units": "A"}}, "beam": {"left": ["a"]}}, r"beam\.right: Field required"),
    ],
)
def test_wrong_settings_are_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        counters({"c": np.zeros(3)}, values)
    assert "\n" not in str(caught.value)


def test_measured_currents_keep_their_values_and_units(test_data: pathlib.Path) -> None:
    frames = plugins.find("formats", "nanomax_panda").read(test_data / "positions" / "nanomax_000008.h5", 0, 1111, {})
    values = {
        "counters": {
            "i0": {"field": "alba2/1", "units": "nA", "gain": 1e9, "dark": 0},
            "i2": {"field": "alba2/2", "units": "nA", "gain": 1e9, "dark": 0, "normalise_to": "i0"},
        }
    }
    found = counters(frames, values)
    np.testing.assert_allclose(found["i0"], frames["alba2/1"] * 1e9)
    np.testing.assert_allclose(found["i2"], frames["alba2/2"] / frames["alba2/1"])
    units = {one.name: one.units for one in COUNTERS.declared(values)}
    assert (units["i0"], units["i2"]) == ("nA", "1")
