"""Encoders: known counts give known positions; what an author's test harness refuses."""

import pathlib

import numpy as np
import pytest

from beamtide import registry as plugins
from beamtide.errors import BadInput
from cluster_side.modalities.base import Output, checked, run
from cluster_side.modalities.registry import modality

ENCODERS = modality("encoders")
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
    ],
)
def test_an_output_that_breaks_its_declaration_is_refused(array: np.ndarray, output: Output, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        checked({"a": array}, (output,), 3)


def test_the_measured_scan_has_the_pitch_that_was_asked_for(test_data: pathlib.Path) -> None:
    panda = plugins.find("formats", "nanomax_panda")
    frames = panda.read(test_data / "positions" / "nanomax_000008.h5", 0, 1111, {})
    axes = {"x": {"field": "INENC2.VAL_Mean"}, "y": {"field": "INENC3.VAL_Mean"}}
    found = run(ENCODERS, frames, {"axes": axes, "extra": {"i0": {"field": "alba2/1", "units": "A"}}})
    x, y = found["x"].reshape(11, 101), found["y"].reshape(11, 101)
    assert np.diff(x, axis=1).mean() == pytest.approx(0.200, abs=0.001)
    assert np.diff(y, axis=0).mean() == pytest.approx(2.0, abs=0.01)
    assert (found["i0"] > 0).all()
