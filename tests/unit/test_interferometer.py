"""Interferometers: known paths give known positions, also through wrapped phases, uneven samples and a drifting mirror."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from beamtide import registry
from beamtide.errors import BadInput
from cluster_side.modalities.base import run

INTERFEROMETER = registry.find("modalities", "interferometer")
FRINGE = 774.9


def interferometer(frames: dict[str, np.ndarray], values: dict[str, object]) -> dict[str, np.ndarray]:
    return dict(run(INTERFEROMETER, frames, values))


@given(st.integers(0, 10**6), st.sampled_from([1, -1]), st.integers(1, 30))
def test_phases_are_unwrapped_onto_the_fringe_that_the_encoder_names(seed: int, sign: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    start, speed = random.uniform(-1e5, 1e5, 9), random.uniform(-200, 200, 9)
    path = start[:, None] + np.cumsum(np.broadcast_to(speed[:, None] / 30, (9, samples)), axis=1)
    phase = np.angle(np.exp(1j * sign * (path - 12.0) / FRINGE * 2 * np.pi))
    encoder = path.mean(axis=1) / 1000 + random.uniform(-0.19, 0.19, 9)  # um, good to a quarter of a fringe
    axis = {"field": "p", "fringe": FRINGE, "coarse": "encoders/x", "coarse_scale": 1000, "sign": sign, "offset": 12.0}
    found = interferometer({"p": phase, "encoders/x": encoder}, {"axes": {"x": axis}})
    np.testing.assert_allclose(found["x"], path.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found["x_std"], path.std(axis=1), atol=1e-6)
    assert not found["flags/x"].any()


def test_an_encoder_that_is_half_a_fringe_away_is_flagged() -> None:
    axis = {"field": "p", "fringe": 800.0, "coarse": "c"}
    found = interferometer({"p": np.zeros(3), "c": np.array([0.0, 190.0, 390.0])}, {"axes": {"x": axis}})
    np.testing.assert_array_equal(found["flags/x"], [0, 0, 2])


@given(st.integers(0, 10**6), st.integers(2, 20))
def test_uneven_samples_are_weighted_by_their_time_as_scipy_does(seed: int, samples: int) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.1, 1.0, (4, samples)), axis=1)
    counts = random.normal(size=(4, samples)) * 1e3
    found = interferometer({"c": counts, "t": times}, {"axes": {"x": {"field": "c", "resolution": 0.5}}, "time": "t"})
    expected = 0.5 * integrate.trapezoid(counts, times, axis=1) / (times[:, -1] - times[:, 0])
    np.testing.assert_allclose(found["x"], expected, rtol=1e-12)


def test_ragged_samples_end_where_their_times_end_and_a_restarted_clock_is_no_position() -> None:
    times = np.array([[0.0, 1.0, 3.0], [0.0, 1.0, np.nan], [5.0, np.nan, np.nan], [0.0, 1.0, 0.5], [np.nan] * 3])
    counts = np.array([[0.0, 2.0, 2.0], [0.0, 2.0, np.nan], [7.0, np.nan, np.nan], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    found = interferometer({"c": counts, "t": times}, {"axes": {"x": {"field": "c", "resolution": 1.0}}, "time": "t"})
    np.testing.assert_allclose(found["x"], [5 / 3, 1.0, 7.0, np.nan, np.nan])
    np.testing.assert_array_equal(found["flags/x"], [0, 0, 0, 1, 1])


def test_the_drift_of_the_mirror_is_taken_off_and_without_it_there_is_no_position() -> None:
    drift = np.array([5.0, 6.0, np.nan])
    axes = {
        "x": {"field": "c", "resolution": 2.0, "reference": "mirror", "reference_at_rest": 5.0},
        "mirror": {"field": "m", "resolution": 1.0},
    }
    found = interferometer({"c": np.array([10.0, 11.0, 12.0]), "m": drift}, {"axes": axes})
    np.testing.assert_array_equal(found["x"], [20.0, 21.0, np.nan])
    np.testing.assert_array_equal(found["flags/x"], [0, 0, 8])
    np.testing.assert_array_equal(found["flags/mirror"], [0, 0, 1])


def test_axes_are_turned_by_an_angle_that_another_pipeline_measured() -> None:
    axes = {"u": {"field": "u", "resolution": 1.0}, "v": {"field": "v", "resolution": 1.0}}
    frames = {"u": np.array([1.0, 1.0]), "v": np.array([2.0, 2.0]), "encoders/r": np.array([90.0, np.nan])}
    found = interferometer(frames, {"axes": axes, "lab": {"axes": ["u", "v"], "angle": "encoders/r"}})
    np.testing.assert_allclose([found["x"], found["y"]], [[2.0, np.nan], [-1.0, np.nan]], atol=1e-12)


@pytest.mark.parametrize("tasks", [7, 50])
def test_a_cut_into_tasks_changes_no_bit(tasks: int) -> None:
    random = np.random.default_rng(2)
    frames = {
        "p": random.uniform(-np.pi, np.pi, (200, 5)),
        "c": random.normal(size=200),
        "t": np.cumsum(random.uniform(size=(200, 5)), axis=1),
        "b": random.integers(0, 2**12, (200, 5)).astype(float),
    }
    axes = {
        "x": {"field": "p", "fringe": 800.0, "coarse": "c", "reference": "m"},
        "m": {"field": "b", "resolution": 0.1, "bits": 12},
    }
    values = {"axes": axes, "time": "t"}
    whole = interferometer(frames, values)
    cuts = [np.array_split(array, tasks) for array in frames.values()]
    parts = [interferometer(dict(zip(frames, cut, strict=True)), values) for cut in zip(*cuts, strict=True)]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), expected, strict=True)


@pytest.mark.parametrize(
    ("axis", "sentence"),
    [
        ({"field": "c"}, "give resolution .* or fringe"),
        ({"field": "c", "fringe": 1.0, "resolution": 1.0}, "give resolution .* or fringe"),
        ({"field": "c", "fringe": 1.0}, "name a coarse position"),
        ({"field": "c", "fringe": 1.0, "coarse": "c", "bits": 8}, "bits belong to an instrument that counts"),
        ({"field": "c", "resolution": 1.0, "reference": "x"}, "must be another axis"),
        ({"field": "c", "fringe": 1.0, "coarse": "z"}, "no column 'z', only c"),
    ],
)
def test_wrong_settings_are_one_sentence(axis: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        interferometer({"c": np.zeros(3)}, {"axes": {"x": axis}})
    assert "\n" not in str(caught.value)


def test_times_of_another_shape_are_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \(3, 4\) cannot have times of shape \(3, 2\)"):
        interferometer(
            {"c": np.zeros((3, 4)), "t": np.zeros((3, 2))}, {"axes": {"x": {"field": "c", "resolution": 1.0}}, "time": "t"}
        )
