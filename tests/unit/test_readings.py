"""Units that files state win, or are refused: on drawn units, scales and columns, from file to result."""

import math
import pathlib
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamtide import registry, units
from beamtide.errors import BadInput

METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "cm": 1e-2, "micron": 1e-6, "micrometer": 1e-6, "Millimeters": 1e-3}
HDF5 = registry.find("formats", "hdf5")


def read(path: pathlib.Path, name: str, values: dict[str, Any], options: dict[str, str]) -> dict[str, np.ndarray]:
    """Do as a worker does: read columns, bring them to the units of the settings, compute."""
    known = registry.find("modalities", name)
    arrays = HDF5.read(path, 0, HDF5.probe(path, options).frames, options)
    return dict(known.load(values, {})(known.in_units(values, arrays, HDF5.units(path, options))))


def written(path: pathlib.Path, values: np.ndarray, unit: Any) -> dict[str, str]:
    with h5py.File(path, "w") as file:
        file["c"] = values
        if unit is not None:
            file["c"].attrs["units"] = unit
    return {"c": "/c"}


@given(
    st.sampled_from([*METRES, None, "counts", "", "a.u."]),
    st.sampled_from(["mm", "um", "nm"]),
    st.booleans(),
    st.sampled_from([None, 1.0, 1e-3, 1e3, 0.25]),
    st.sampled_from(["i4", ">i4", "f8", ">f4"]),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_position_is_that_of_the_file_or_refused(
    tmp_path: pathlib.Path, stated: str | None, wanted: str, as_bytes: bool, resolution: float | None, dtype: str
) -> None:
    """The length is what file and settings say together, and where they contradict each other there is none."""
    values = np.arange(5).astype(dtype)
    options = written(tmp_path / "p.h5", values, stated.encode() if stated and as_bytes else stated)
    axis = {"field": "c", "units": wanted} | ({} if resolution is None else {"resolution": resolution})
    length, scale = METRES.get(stated or ""), METRES[wanted]
    other = length is not None and not math.isclose(length, scale)
    contradicts = other and resolution is not None and not math.isclose(resolution * scale, length or 0.0)
    if contradicts or (stated == "counts" and resolution is None):
        with pytest.raises(BadInput, match=f"in {stated}, .*resolution"):
            read(tmp_path / "p.h5", "encoders", {"axes": {"x": axis}}, options)
        return
    x = read(tmp_path / "p.h5", "encoders", {"axes": {"x": axis}}, options)["x"] * scale
    expected = length if other else (1.0 if resolution is None else resolution) * scale
    np.testing.assert_allclose(x, values.astype(float) * expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("stated", "one", "expected"),
    [
        ("mA", {"units": "A"}, 2e-3),
        ("A", {"units": "nA"}, 2e9),
        ("V", {"units": "A", "gain": 1e-6}, 2e-6),
        ("V", {"units": "V", "gain": 10.0}, 20.0),
        ("counts", {"units": "counts"}, 2.0),
        (None, {"units": "A"}, 2.0),
        ("V", {"units": "A"}, "'V' is a unit of voltage, 'A' of current: .*counters.i0.gain"),
        ("mV", {"units": "V", "gain": 10.0}, "1 mV is 0.001 V, but counters.i0.gain says 10"),
        ("furlong", {"units": "A"}, "'furlong' is not known"),
    ],
)
def test_a_counter_obeys_its_file(stated: str | None, one: dict[str, Any], expected: float | str, tmp_path: pathlib.Path) -> None:
    options = written(tmp_path / "c.h5", np.full(3, 2.0), stated)
    chosen = {"counters": {"i0": {"field": "c", "dark": 0} | one}}
    if isinstance(expected, str):
        with pytest.raises(BadInput, match=expected):
            read(tmp_path / "c.h5", "counters", chosen, options)
    else:
        np.testing.assert_allclose(read(tmp_path / "c.h5", "counters", chosen, options)["i0"], expected)


def test_an_exposure_in_milliseconds_is_one_in_seconds(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["c"], file["t"] = np.full(3, 50.0), np.full(3, 100.0)
        file["t"].attrs["units"] = "millisecond"
    chosen = {"counters": {"i0": {"field": "c", "units": "1/s", "rate": True, "dark": 0}}, "exposure": "t"}
    found = read(tmp_path / "c.h5", "counters", chosen, {"c": "/c", "t": "/t"})
    np.testing.assert_allclose(found["i0"], 500.0)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("Micrometers", "um"), ("micron", "um"), ("\u00b5m", "um"), ("electronvolt", "eV"), ("KEV", "keV"), ("Angstrom", "angstrom"),
     ("mA", "mA"), ("MA", "MA"), ("milliseconds", "ms"), ("count", "counts"), ("kiloelectronvolt", "keV")],
)  # fmt: skip
def test_units_are_known_in_words(text: str, unit: str) -> None:
    assert units.canonical(text) == unit
