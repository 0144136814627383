"""What goes in as float32, and in whatever unit: the point modalities compute in float64, and a unit is a name and a factor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import registry, units
from beamtide.gridding import places
from cluster_side.modalities.base import run

LOCK_IN = {"x": "a", "y": "b", "dark": [0.1, 0.2], "sensitivity": 0.05, "full_scale": 10.0, "preamp_gain": 1e6}
SETTINGS: dict[str, dict[str, object]] = {
    "encoders": {"axes": {"x": {"field": "a", "resolution": 0.01, "offset": 3.0}, "y": {"field": "many", "spike": 5}}},
    "interferometer": {"axes": {"x": {"field": "many", "resolution": 3.0}, "y": {"field": "a", "fringe": 316.4, "coarse": "b"}}},
    "counters": {"counters": {"i0": {"field": "a", "units": "A", "gain": 1e-6, "dark": 0.01, "normalise_to": "d"}}
                 | {"d": {"field": "b", "units": "V", "dark": 0}}, "exposure": 0.1},
    "xbic": {"units": "A", "chopper_factor": 2.2214, "phase": 37.0, **LOCK_IN},
    "dpc": {"frames": None, "segments": {"left": ["a"], "right": ["b"], "bottom": ["a"], "top": ["c"], "dark": 0.01}},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_columns_in_single_precision_are_computed_in_double(name: str) -> None:
    random = np.random.default_rng(0)
    single = {column: random.uniform(1, 2, 50).astype(np.float32) for column in "abc"}
    single["many"] = random.uniform(1, 2, (50, 9)).astype(np.float32)
    found = run(registry.find("modalities", name), single, SETTINGS[name])
    expected = run(
        registry.find("modalities", name),
        {column: values.astype(np.float64) for column, values in single.items()},
        SETTINGS[name],
    )
    assert len(found) > 1
    for dataset, values in expected.items():
        np.testing.assert_array_equal(found[dataset], values, strict=True, err_msg=dataset)


@given(st.sampled_from(units.known(units.CURRENT)), st.floats(-9, 9), st.floats(-9, 9))
def test_a_current_is_the_same_in_every_unit(unit: str, x: float, y: float) -> None:
    values = SETTINGS["xbic"]
    frames = {"a": np.array([x]), "b": np.array([y])}
    amperes, other = (run(registry.find("modalities", "xbic"), frames, values | {"units": one}) for one in ("A", unit))
    for name in ("signal", "r", "x", "y"):
        assert other[name] * units.factor(unit, "A") == pytest.approx(amperes[name], rel=1e-12, abs=1e-30)
    assert other["theta"] == pytest.approx(amperes["theta"])


@settings(max_examples=20)
@given(st.sampled_from([unit for unit in units.known(units.LENGTH) if unit not in ("fm", "pm")]), st.integers(0, 10**6))
def test_a_phase_is_the_same_for_positions_in_every_unit(unit: str, seed: int) -> None:
    line, column = places((7, 9), 63)
    random = np.random.default_rng(seed)
    angles = {f"dpc/angle_{axis}": random.normal(0, 1e-6, 63) for axis in "xy"}
    frames = {**angles, "dpc/sum": np.ones(63), "scan/line": line, "scan/column": column}

    def phase(into: str) -> np.ndarray:
        places_in = {"encoders/x": column * 3e-7 / units.factor(into, "m"), "encoders/y": line * 2e-7 / units.factor(into, "m")}
        return run(registry.find("modalities", "dpc_phase"), frames | places_in, {"photon_energy": 9.0, "position_units": into})[
            "phase"
        ]

    np.testing.assert_allclose(phase(unit), phase("um"), rtol=1e-6, atol=1e-9)


@given(st.sampled_from(["furlong", "kg m", "u", "Am", "counts per s", ""]))
def test_a_unit_that_nobody_knows_is_refused(unit: str) -> None:
    counters = {"counters": {"a": {"field": "a", "units": unit}}}
    encoders = {"axes": {"x": {"field": "a"}}, "extra": {"i": {"field": "a", "units": unit}}}
    for name, values in (("counters", counters), ("encoders", encoders)):
        with pytest.raises(Exception, match=r"units: .*is not known; known are"):
            registry.find("modalities", name).validated(values)
