"""Captures with their own clock: a stage that moves as we say, seen by an interferometer whose clock runs otherwise."""

import io
import itertools
import math
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.layout import laid_out
from beamtide.files.row import FileFact
from beamtide.files.watch import FileWatch
from beamtide.files.ways import ScanPoints
from beamtide.formats.base import Unfinished
from cluster_side.modalities.base import run
from cluster_side.modalities.interferometer.spec import MODALITY, InterferometerSettings, reads
from cluster_side.modalities.readings import in_units

SAMPLES = registry.find("formats", "samples")
FRINGE = 775.0
GATES = {"gates": "gates.h5", "gate_start": "start", "gate_end": "end"}
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Array = NDArray[np.float64]


def stage(at: Array) -> Array:
    """Where the stage is, in nm: it moves, wobbles, and turns back."""
    return 3000 * np.abs(np.sin(0.7 * at)) + 40 * np.sin(31 * at + 1)


def saved(folder: pathlib.Path, columns: dict[str, Array], separator: str = ",") -> pathlib.Path:
    """Write a capture, with lines before its heading where these cannot be taken for numbers."""
    text = io.StringIO()
    text.write("Instrument X\nserial: 7\n\n" + separator.join(columns) + "\n")
    for row in zip(*columns.values(), strict=True):
        text.write(separator.join(repr(float(one)) for one in row) + "\n")
    path = folder / "capture.csv"
    path.write_text(text.getvalue())
    return path


def with_gates(folder: pathlib.Path, starts: Array, ends: Array) -> None:
    with h5py.File(folder / "gates.h5", "w") as file:
        file["start"], file["end"] = starts, ends


def positions(path: pathlib.Path, options: dict[str, str], axis: dict[str, Any], **more: Array) -> dict[str, Array]:
    """Read all gates and compute them, as a worker does."""
    given_by = SAMPLES.read(path, 0, SAMPLES.probe(path, options).frames, options)
    values = {"axes": {"x": axis}, "time": options["time"], "gate": ["gate_start", "gate_end"]}
    wanted = reads(InterferometerSettings.model_validate(values))
    arrays = in_units(wanted, given_by, SAMPLES.units(path, options)) | more
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dict(run(MODALITY, arrays, values))


def naive(times: list[float], values: list[float], start: float, end: float) -> tuple[float, float, float, float]:
    """Return mean over time, deviation, smallest and largest of the line through the samples between start and end."""
    steps = sorted(later - one for one, later in itertools.pairwise(times))
    usual = (steps[(len(steps) - 1) // 2] + steps[len(steps) // 2]) / 2
    before = [number for number, time in enumerate(times) if time <= start]
    behind = [number for number, time in enumerate(times) if time >= end]
    if not before or not behind:
        return (math.nan,) * 4
    around = range(before[-1], behind[0])
    if any(times[number + 1] - times[number] > max(1.5 * usual, 0.1 * (end - start)) for number in around):
        return (math.nan,) * 4

    def line(at: float) -> float:
        number = max(0, min(len(times) - 2, sum(time <= at for time in times) - 1))
        part = (at - times[number]) / (times[number + 1] - times[number])
        return values[number] + part * (values[number + 1] - values[number])

    at = [start, *(time for time in times if start < time < end), end]
    seen = [line(one) for one in at]
    area = sum((at[k + 1] - at[k]) * (seen[k] + seen[k + 1]) / 2 for k in range(len(at) - 1))
    middle = sum(seen) / len(seen)
    return area / (end - start), math.sqrt(sum((one - middle) ** 2 for one in seen) / len(seen)), min(seen), max(seen)


@given(
    st.integers(0, 10**6),
    st.floats(-50, 50),
    st.floats(0.9, 1.1),
    st.lists(st.tuples(st.floats(0.001, 0.1), st.floats(0.001, 0.3)), min_size=1, max_size=12),
    st.lists(st.integers(0, 119), max_size=30),
    st.sampled_from([",", ";", "\t", " "]),
)
@SLOW
def test_the_mean_over_each_gate_is_that_of_a_loop(
    tmp_path: pathlib.Path,
    seed: int,
    offset: float,
    rate: float,
    gates: list[tuple[float, float]],
    lost: list[int],
    separator: str,
) -> None:
    random = np.random.default_rng(seed)
    own = np.cumsum(random.uniform(0.8, 1.2, 120)) * 0.01
    keep = np.setdiff1d(np.arange(120), lost)
    values = stage(own)
    edges = np.cumsum(np.ravel(gates)) + own[0] - 0.05
    starts, ends = offset + rate * edges[::2], offset + rate * edges[1::2]
    with_gates(tmp_path, starts, ends)
    path = saved(tmp_path, {"t[s]": own[keep], "x": values[keep]}, separator)
    options = {"time": "t", "clock_offset": repr(offset), "clock_rate": repr(rate), **GATES}
    times = [offset + rate * one for one in own[keep]]
    expected = [naive(times, list(values[keep]), start, end) for start, end in zip(starts, ends, strict=True)]
    found = positions(path, options, {"field": "x", "resolution": 1.0})
    for name, column in zip(("x", "x_std", "x_min", "x_max"), zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(found[name], column, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found["flags/x"], np.isnan([one[0] for one in expected]))
    extent = SAMPLES.probe(path, options)
    there = [number + 1 for number, end in enumerate(ends) if end <= times[-1]]
    held = max(there, default=0)
    assert [(one.first, one.last) for one in extent.missing] == ([(held, len(ends))] if held < len(ends) else [])


@given(st.floats(-100, 100), st.floats(0.999, 1.001), st.sampled_from([1, -1]), st.integers(0, 10**6))
@settings(SLOW, max_examples=10)
def test_lengths_counts_and_phases_of_one_stage_are_one_position(
    tmp_path: pathlib.Path, offset: float, rate: float, sign: int, seed: int
) -> None:
    """The truth is an integral of the stage's path over each gate, of which the capture saw samples only."""
    random = np.random.default_rng(seed)
    when = np.arange(0, 4, 1e-3) + random.uniform(0, 2e-4, 4000)
    starts = 0.1 + np.arange(30) * 0.12
    ends = starts + 0.1
    path_now = stage(when)
    phase = np.angle(np.exp(2j * np.pi * sign * path_now / FRINGE))
    own = (when - offset) / rate
    columns = {
        "Time (us)": own * 1e6,
        "Position 1 (pm)": path_now * 1000,
        "count": np.rint(path_now / (FRINGE / 1024)),
        "phase (deg)": np.degrees(phase),
    }
    file = saved(tmp_path, columns, ";")
    with_gates(tmp_path, starts, ends)
    fine = np.linspace(0, 1, 20001)
    truth = np.array([np.trapezoid(stage(start + 0.1 * fine), fine) for start in starts])
    options = {"time": "Time", "clock_offset": repr(offset), "clock_rate": repr(rate), "phases": "phase", **GATES}
    assert SAMPLES.units(file, options)["Position 1"] == "pm"
    lengths = positions(file, options, {"field": "Position 1", "resolution": 0.001})
    np.testing.assert_allclose(lengths["x"], truth, atol=0.1)
    counts = positions(file, options, {"field": "count", "resolution": FRINGE / 1024})
    np.testing.assert_allclose(counts["x"], truth, atol=0.5)
    phases = {"field": "phase", "fringe": FRINGE, "sign": sign}
    whole = positions(file, options, {**phases, "continuous": True})
    first = path_now[0] - sign * FRINGE * phase[0] / (2 * np.pi)
    np.testing.assert_allclose(whole["x"] + first, truth, atol=0.1)
    encoder = truth / 1000 + random.uniform(-0.18, 0.18, 30)
    coarse = positions(file, options, {**phases, "coarse": "encoders/x", "coarse_scale": 1000}, **{"encoders/x": encoder})
    np.testing.assert_allclose(coarse["x"], truth, atol=0.1)
    assert not any(one["flags/x"].any() for one in (lengths, counts, whole, coarse))


@given(
    st.lists(st.floats(-0.39, 0.39), min_size=5, max_size=60),
    st.sets(st.integers(0, 59), max_size=3),
    st.sets(st.integers(1, 59), max_size=2),
    st.booleans(),
)
@SLOW
def test_a_fringe_that_was_lost_is_said_and_never_guessed(
    tmp_path: pathlib.Path, steps: list[float], lost: set[int], fast: set[int], dead: bool
) -> None:
    """Dropouts as missing lines or as NaN, and steps of almost half a turn or more: all behind them is not known."""
    steps = [one if number not in fast else 0.41 + abs(one) / 3 for number, one in enumerate(steps)]
    turns = np.cumsum([0.0, *steps])
    phase = np.angle(np.exp(2j * np.pi * turns))
    own = np.arange(len(turns)) * 1.0
    keep = np.array([number for number in range(len(turns)) if dead or number not in lost])
    phase = np.where([dead and number in lost for number in range(len(turns))], np.nan, phase)
    if keep.size < 4:
        return
    with_gates(tmp_path, own[:-1], own[1:] - 1e-9)
    path = saved(tmp_path, {"t (s)": own[keep], "p (rad)": phase[keep]})
    found = positions(path, {"time": "t", "phases": "p", **GATES}, {"field": "p", "fringe": 1.0, "continuous": True})
    first = int(keep[0])
    broken = sorted(
        {number for number in lost if number > first or dead} | {one for one in fast if one <= len(steps) - 1 and one >= first}
    )
    limit = min([number - 1 if number in lost else number for number in broken] or [len(turns)], default=len(turns))
    expected = 0.5 * (turns[1:] + turns[:-1]) - turns[first] + phase[first] / (2 * np.pi)
    for gate in range(len(turns) - 1):
        known = np.isfinite(found["x"][gate])
        assert not known or abs(found["x"][gate] - expected[gate]) < 1e-6
        assert known or found["flags/x"][gate]
        if first <= gate and gate + 1 <= limit:
            assert known, (gate, limit)


def test_a_step_of_almost_half_a_turn_within_an_exposure_is_no_position() -> None:
    axis = {"field": "p", "fringe": 800.0, "coarse": "c"}
    turns = np.array([[0.0, 0.39, 0.78], [0.0, 0.45, 0.78], [0.0, 0.55, 0.7]])
    phase = np.angle(np.exp(2j * np.pi * turns))
    found = run(MODALITY, {"p": phase, "c": 800 * turns.mean(axis=1)}, {"axes": {"x": axis}})
    np.testing.assert_allclose(found["x"], [800 * 0.39, np.nan, np.nan])
    np.testing.assert_array_equal(found["flags/x"], [0, 5, 5])


def test_phases_whose_turns_nobody_counted_are_refused() -> None:
    values = {"axes": {"x": {"field": "p", "fringe": 800.0, "continuous": True}}}
    with pytest.raises(BadInput, match=r"turns of 'p' were not counted; set format: samples and options: \{phases: p\}"):
        run(MODALITY, {"p": np.zeros(3)}, values)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8), st.integers(-1, 1), st.booleans())
@SLOW
def test_pulses_of_a_trigger_channel_are_the_gates_if_they_are_as_many_as_the_scan_has_points(
    tmp_path: pathlib.Path, pulses: list[tuple[int, int]], off: int, ended: bool
) -> None:
    level = [0.1]
    for low, high in pulses:
        level += [0.0] * low + [4.9] * high
    level += [0.2] * 3 if ended else []
    own = np.arange(len(level)) * 2.0
    path = saved(tmp_path, {"t (ms)": own, "x (nm)": 3 * own, "gate": np.array(level)})
    options = {"time": "t", "trigger": "gate"}
    found = positions(path, options, {"field": "x", "resolution": 1.0})["x"]
    highs = np.split(own, np.flatnonzero(np.diff(np.array(level) > 2.5)) + 1)[1::2]
    expected = [3 * (one[0] + one[-1]) / 2 for one in highs]
    np.testing.assert_allclose(found[: len(found) - (not ended)], expected[: len(found) - (not ended)])
    assert ended or np.isnan(found[-1])
    source = SourceConfig(match="*.csv", format="samples", options=options)
    facts = FileWatch(tmp_path, "scan", source).look(0.0)
    points = len(pulses) + off
    if points < 1:
        return
    pieces = laid_out(facts, ScanPoints.of(points, (points,)), source, closed=True).pieces
    held = len(pulses) - (not ended)
    if off:
        assert [(one.start, one.stop) for one in pieces] == [(0, points)]
        assert f"holds {len(pulses)} exposures and should hold {points}: nobody can tell which pulses" in pieces[0].trouble
        assert not laid_out(facts, ScanPoints.of(points, (points,)), source, closed=False).pieces
    else:
        assert [(one.start, one.stop) for one in pieces if one.path] == ([(0, held)] if held else [])


def test_gates_may_be_a_capture_of_a_pandabox_and_are_seen_when_they_come_late(tmp_path: pathlib.Path) -> None:
    own = np.arange(0, 10, 0.1)
    path = saved(tmp_path, {"t (s)": own, "x (nm)": own})
    options = {"time": "t", "gates": "{stem}_panda.txt", "gate_start": "PCAP.TS_START.Value", "gate_end": "PCAP.TS_END.Value"}
    source = SourceConfig(match="capture.csv", format="samples", options=options)
    watch = FileWatch(tmp_path, "scan", source)
    assert "cannot be read" in watch.look(0.0)[0].trouble
    header = "missed: 1\nprocess: Scaled\nformat: ASCII\nfields:\n"
    fields = "".join(f" PCAP.TS_{name} double Value scale: 8e-09 offset: 0 units: s\n" for name in ("START", "END"))
    gates = tmp_path / "capture_panda.txt"
    gates.write_text(f"{header}{fields}\n 1 2\n")
    assert watch.look(1.0)[0].frames == 2
    gates.write_text(f"{header}{fields}\n 1 2\n 3 5\nEND 2 Ok\n")
    assert watch.look(2.0)[0].frames == 3
    found = positions(path, options, {"field": "x", "resolution": 1.0})
    np.testing.assert_allclose(found["x"], [np.nan, 1.5, 4.0])


TEXT = "Date: 1.2.2026\nTime (s){0}x (nm)\n0.0{0}1.5\n0.1{0}2.5\n0.2{0}3.5\n0.3{0}4.5\n"
OPTIONS = {"time": "Time", **GATES}


@pytest.mark.parametrize(
    ("change", "options", "kind", "sentence"),
    [
        (lambda text: text.replace(",", ";").replace(".", ","), {}, BadInput, r"line 3 has decimal commas \(0,0;1,5\)"),
        (lambda text: text.replace(",", " ").replace(".", ","), {}, BadInput, r"line 3 has decimal commas"),
        (lambda text: text.replace("0.2,3.5", "0.2,over"), {}, BadInput, r"line 5 is not 2 numbers: 0.2 over"),
        (lambda text: text.replace("0.2,3.5", "0.2,3.5,1"), {}, BadInput, r"line 5 is not 2 numbers"),
        (lambda text: text.replace("0.2,", "0.0,"), {}, BadInput, r"Time does not grow behind sample 1; was the clock restarted"),
        (lambda text: text.replace(" (s)", ""), {}, BadInput, r"does not say in which unit 'Time' is; set time_unit"),
        (str, {"time_unit": "ms"}, BadInput, r"gives 'Time' in s, but source.options.time_unit says ms"),
        (str, {"time": "clock"}, BadInput, r"has no column 'clock', only Time, x"),
        (str, {"gate_end": "nix"}, BadInput, r"nix"),
        (str, {"clock_rate": "-1"}, BadInput, r"clock_rate is '-1'; expected a number"),
        (str, {"phases": "x"}, BadInput, r"'x' spans .* turns, so it is no wrapped phase|one cannot become the other"),
        (lambda text: text.partition("\n0.0")[0] + "\n", {}, Unfinished, r"holds no line of numbers \(yet\)"),
    ],
)
def test_what_cannot_be_taken_for_what_it_is_is_a_sentence(
    tmp_path: pathlib.Path, change: Callable[[str], str], options: dict[str, str], kind: type[BadInput], sentence: str
) -> None:
    (tmp_path / "capture.csv").write_text(change(TEXT.format(",")))
    with_gates(tmp_path, np.array([0.0, 0.2]), np.array([0.1, 0.3]))
    with pytest.raises(kind, match=sentence) as caught:
        SAMPLES.probe(tmp_path / "capture.csv", OPTIONS | options)
    assert "\n" not in str(caught.value)


def test_a_unit_of_the_heading_that_contradicts_the_settings_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "capture.csv").write_text(TEXT.format(",").replace("(nm)", "[pm]"))
    with_gates(tmp_path, np.array([0.0, 0.2]), np.array([0.1, 0.3]))
    np.testing.assert_allclose(
        positions(tmp_path / "capture.csv", OPTIONS, {"field": "x", "resolution": 0.001})["x"], [0.002, 0.004]
    )
    with pytest.raises(BadInput, match=r"1 pm is 0.001 nm, but axes.x.resolution says 0.5"):
        positions(tmp_path / "capture.csv", OPTIONS, {"field": "x", "resolution": 0.5})


def test_hdf5_with_channels_and_ticks_is_read(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "scale.h5", "w") as file:
        file["data/t"], file["data/ch1"] = np.arange(100, 200), np.arange(100.0)
        file["data/ch1"].attrs["units"] = "nm"
    with_gates(tmp_path, np.array([1.0, 5.0]), np.array([2.0, 7.0]))
    options = {
        "time": "t",
        "t": "data/t",
        "x": "data/ch1",
        "time_unit": "counts",
        "clock_rate": "0.1",
        "clock_offset": "-10",
        **GATES,
    }
    np.testing.assert_allclose(positions(tmp_path / "scale.h5", options, {"field": "x", "resolution": 1.0})["x"], [15.0, 60.0])


def test_names_of_a_file_that_lacks_exposures_fit_no_room() -> None:
    files = [FileFact("a", 5, exact="odd"), FileFact("b", 4, exact="odd")]
    source = SourceConfig(match="*", frames_per_file="line")
    pieces = laid_out(files, ScanPoints.of(10, (2, 5)), source, closed=True).pieces
    assert [(one.start, one.stop, one.trouble) for one in pieces] == [
        (0, 5, ""),
        (5, 10, "b holds 4 exposures and should hold 5: odd"),
    ]


@pytest.mark.parametrize(
    ("steps", "lost"), [([0.3] * 9, {4}), ([0.1] * 9, {4}), ([0.1, 0.2, 0.1, 0.45, 0.1, 0.1, 0.2, 0.1, 0.1], set())]
)
def test_behind_a_lost_sample_or_a_large_step_no_turn_is_known(
    tmp_path: pathlib.Path, steps: list[float], lost: set[int]
) -> None:
    turns, own = np.cumsum([0.0, *steps]), np.arange(10.0)
    keep = np.array([number for number in range(10) if number not in lost])
    with_gates(tmp_path, own[:-1], own[1:] - 0.01)
    path = saved(tmp_path, {"t (s)": own[keep], "p (rad)": np.angle(np.exp(2j * np.pi * turns))[keep]})
    found = positions(path, {"time": "t", "phases": "p", **GATES}, {"field": "p", "fringe": 1.0, "continuous": True})
    np.testing.assert_array_equal(np.isfinite(found["x"]), [True] * 3 + [False] * 6)
    np.testing.assert_array_equal(found["flags/x"][5:], 17)
