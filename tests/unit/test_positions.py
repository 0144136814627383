"""Positions of a whole scan: spikes among neighbours, two instruments on one axis, and maps by measured position."""

import itertools
import pathlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.gridding import places
from cluster_side.modalities.base import checked, run
from cluster_side.modalities.positions.kernel import spikes

POSITIONS = registry.find("modalities", "positions")
SHAPE = (7, 30)


def raster(seed: int = 0, *, snake: bool = True, noise: float = 0.02) -> dict[str, np.ndarray]:
    """A scan of 7 x 30 points in steps of 0.5 x 1 um, measured with a little noise."""
    random = np.random.default_rng(seed)
    line, column = places(SHAPE, int(np.prod(SHAPE)), snake=snake)
    x = 0.5 * column + random.normal(0, noise, line.size)
    return {
        "encoders/x": x,
        "encoders/y": 1.0 * line + random.normal(0, noise, line.size),
        "scan/line": line,
        "scan/column": column,
    }


def naive_spikes(values: np.ndarray, line: np.ndarray, limit: float, neighbours: int) -> list[bool]:
    """The docstring, point by point."""
    off, mad, least = ([0.0] * len(values) for _ in range(3))
    for number in set(line.tolist()):
        at = [index for index in range(len(values)) if line[index] == number and np.isfinite(values[index])]
        if len(at) < 5:
            continue
        steps = [values[b] - values[a] for a, b in itertools.pairwise(at)]
        rest = [values[index] - np.median(steps) * place for place, index in enumerate(at)]
        k = min(neighbours, (len(at) - 1) // 2)
        for place, index in enumerate(at):
            first = min(max(place - k, 0), len(at) - 2 * k - 1)
            around = np.array(rest[first : first + 2 * k + 1])
            off[index] = abs(rest[place] - np.median(around))
            mad[index] = np.median(np.abs(around - np.median(around)))
            least[index] = 0.05 * np.median(np.abs(steps))
    usual = np.median([off[index] for index in range(len(values)) if np.isfinite(values[index])] or [0.0])
    return [o > max(limit * 1.4826 * max(m, usual), floor) for o, m, floor in zip(off, mad, least, strict=True)]


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(2, 6))
def test_spikes_are_the_definition(seed: int, count: int, neighbours: int) -> None:
    random = np.random.default_rng(seed)
    values = np.cumsum(random.normal(1, 0.3, count))
    values[random.random(count) < 0.1] += random.choice([-30.0, 0.4, 30.0, np.nan])
    line = np.sort(random.integers(0, 3, count))
    assert spikes(values, line, 5.0, neighbours).tolist() == naive_spikes(values, line, 5.0, neighbours)


@pytest.mark.parametrize("snake", [True, False])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_spike_is_flagged_and_nothing_else(axis: str, snake: bool) -> None:
    frames = raster(snake=snake)
    spoilt = [0, 15, 29, 30, 101, 209]
    frames[f"encoders/{axis}"][spoilt] += 3.0
    frames["encoders/x"][50] = np.nan
    flags = run(POSITIONS, frames, {})["flags/position"]
    assert np.flatnonzero(flags & 2).tolist() == spoilt, "also at the ends of lines, where the stage turns back"
    assert np.flatnonzero(flags & 1).tolist() == [50]


def test_two_instruments_are_compared_as_scipy_does() -> None:
    frames = raster()
    random = np.random.default_rng(5)
    other = 1000 * (0.98 * frames["encoders/x"] + 0.3 + random.normal(0, 0.01, 210))
    other[7] = np.nan
    compare = {"x": {"first": "encoders/x", "second": "interferometer/x", "scale": 0.001}}
    found = run(POSITIONS, {**frames, "interferometer/x": other}, {"compare": compare})
    good = np.isfinite(other)
    line = stats.linregress(frames["encoders/x"][good], 0.001 * other[good])
    rest = 0.001 * other[good] - line.slope * frames["encoders/x"][good] - line.intercept
    assert found["correlation/x"] == pytest.approx(line.rvalue)
    assert found["scale/x"] == pytest.approx(line.slope)
    assert found["difference/x"] == pytest.approx(np.sqrt(np.mean(rest**2)))
    still = run(POSITIONS, {**frames, "interferometer/x": np.full(210, np.nan)}, {"compare": compare})
    assert np.isnan(still["correlation/x"]).all()


def test_a_map_is_the_weighted_mean_of_the_points_in_each_cell() -> None:
    frames = raster(noise=0.1)
    random = np.random.default_rng(1)
    frames |= {"xrf/area/Fe_K": random.poisson(50, 210).astype(float), "counters/i0": random.uniform(0.5, 2, 210)}
    frames["xrf/area/Fe_K"][3] = np.nan
    frames["encoders/x"][20] += 200.0  # a spike draws nothing, and does not make the map wider
    wanted = {"step": (1.0, 1.0), "datasets": {"iron": "xrf/area/Fe_K"}, "weights": "counters/i0"}
    found = run(POSITIONS, frames, {"map": wanted})
    x, y, iron, i0 = (frames[name] for name in ("encoders/x", "encoders/y", "xrf/area/Fe_K", "counters/i0"))
    use = np.isfinite(iron)
    use[20] = False
    expected = np.full(found["grid/iron"].shape, np.nan)
    for row, middle_y in enumerate(found["grid_y"]):
        for column, middle_x in enumerate(found["grid_x"]):
            here = use & (np.abs(x - middle_x) < 0.5) & (np.abs(y - middle_y) < 0.5)
            if here.any():
                expected[row, column] = np.sum(iron[here] * i0[here]) / np.sum(i0[here])
    np.testing.assert_allclose(found["grid/iron"], expected)
    assert found["grid/iron"].shape[1] <= 17
    assert found["flags/position"][20] == 2 | 4
    assert found["grid/weight"].sum() == pytest.approx(i0.sum() - i0[20])


def test_without_a_beam_nothing_is_drawn_and_every_point_says_why() -> None:
    frames = raster() | {"xrf/area/Fe_K": np.ones(210), "counters/i0": np.zeros(210)}
    wanted = {"step": (1.0, 1.0), "datasets": {"iron": "xrf/area/Fe_K"}, "weights": "counters/i0"}
    found = run(POSITIONS, frames, {"map": wanted})
    assert np.isnan(found["grid/iron"]).all()
    assert (found["flags/position"] & 8 == 8).all()


def test_what_is_drawn_has_the_unit_of_what_it_was_drawn_from() -> None:
    frames = raster() | {"counters/i0": np.ones(210)}
    values = {"map": {"step": (1.0, 1.0), "datasets": {"beam": "counters/i0"}}}
    given = {"counters/i0": "nA", "encoders/x": "um", "encoders/y": "um"}
    headers = checked(run(POSITIONS, frames, values), POSITIONS.declared(values), 210, given)
    of = {header.name: header.units for header in headers}
    assert (of["grid/beam"], of["grid/weight"], of["grid_x"]) == ("nA", "1", "um")
    POSITIONS.suits(values, given)
    with pytest.raises(BadInput, match="encoders/y is given in mm, and the settings of positions want um; correct one"):
        POSITIONS.suits(values, given | {"encoders/y": "mm"})


def test_cells_without_a_point_are_filled_and_marked() -> None:
    frames = raster() | {"xrf/area/Fe_K": np.arange(210.0)}
    wanted = {"step": (0.25, 0.5), "datasets": {"iron": "xrf/area/Fe_K"}}
    bare = run(POSITIONS, frames, {"map": wanted})
    full = run(POSITIONS, frames, {"map": wanted | {"fill": True}})
    missing = np.isnan(bare["grid/iron"])
    assert missing.mean() > 0.5
    assert np.isfinite(full["grid/iron"]).all()
    np.testing.assert_array_equal(full["grid/filled"].astype(bool), missing)
    np.testing.assert_array_equal(full["grid/iron"][~missing], bare["grid/iron"][~missing])


def test_measured_positions_have_no_spikes_and_bear_each_other_out(test_data: pathlib.Path) -> None:
    """NanoMAX: the encoder, and the read-back by an analogue input in volts, of which one is 5 um."""
    with h5py.File(test_data / "positions" / "nanomax_000008.h5") as file:
        panda = file["entry/measurement/panda0"]
        names = ("INENC2.VAL_Mean", "INENC3.VAL_Mean", "FMC_IN.VAL2_Mean", "FMC_IN.VAL3_Mean")
        columns = [np.asarray(panda[name]).ravel() for name in names]
    frames = dict(zip(("encoders/x", "encoders/y", "analogue/x", "analogue/y"), columns, strict=True))
    frames |= dict(zip(("scan/line", "scan/column"), places((11, 101), columns[0].size), strict=True))
    pairs = {axis: {"first": f"encoders/{axis}", "second": f"analogue/{axis}", "scale": by} for axis, by in (("x", -5), ("y", 5))}
    found = run(POSITIONS, frames, {"compare": pairs})
    assert np.count_nonzero(found["flags/position"]) < 0.02 * columns[0].size
    for axis in "xy":
        assert found[f"correlation/{axis}"] > 0.99999
        assert abs(found[f"scale/{axis}"][0] - 1) == pytest.approx(0.0025, abs=0.0006), "0.225 and 0.272 % were measured"
        assert found[f"difference/{axis}"] < 0.02, "um"


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"map": {"step": (1e-9, 1e-9), "datasets": {"a": "encoders/x"}}}, "give the step in the unit of the positions"),
        ({"map": {"step": (1, 1), "datasets": {"x": "encoders/x"}}}, r"map\.datasets\.x: that name is taken"),
        ({"map": {"step": (0, 1), "datasets": {"a": "encoders/x"}}}, r"map\.step\.0"),
        ({"x": "lost/x"}, "no column 'lost/x'"),
        ({"position_units": "parsec"}, "'parsec' is no unit"),
    ],
)
def test_bad_settings_are_one_sentence(wanted: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        run(POSITIONS, raster(), wanted)


def test_a_part_of_a_scan_is_refused() -> None:
    frames = raster()
    del frames["scan/line"]
    with pytest.raises(BadInput, match=r"source: \{kind: scan\}"):
        run(POSITIONS, frames, {})
