"""Raw captures and HDF5 of a PandABox, against the package pandablocks as its users call it; and captures that lost triggers."""

import pathlib
import struct
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.layout import laid_out
from beamtide.files.row import FileFact
from beamtide.files.ways import ScanPoints

PANDA = registry.find("formats", "panda")
LOSSES = ["Early disconnect", "Data overrun", "Framing error", "Driver data overrun", "DMA data error"]
ENDS = ["Ok", "Disarmed", *LOSSES]
FIELDS = """<field name="PCAP.GATE_DURATION" type="uint32" capture="Value" scale="1" offset="0" units="" />
<field name="PCAP.BITS2" type="uint32" capture="Value" />
<field name="COUNTER1.OUT" type="int32" capture="Min" scale="{scale}" offset="{offset}" units="um" />
<field name="PCAP.TS_START" type="int64" capture="Value" scale="8e-09" offset="0" units="s" />
<field name="COUNTER1.OUT" type="int64" capture="Mean" scale="{scale}" offset="{offset}" units="um" />
"""
ROW = struct.Struct("<IIiqq")


def arming(rows: list[tuple[int, ...]], end: str | None, *, scale: float = 1.0, offset: float = 0.0, **more: Any) -> bytes:
    """Return the bytes of one arming in frames of `per` rows, as `XML FRAMED RAW` gives them."""
    per, missed = more.get("per", 3), more.get("missed", 0)
    data = f'<data missed="{missed}" process="Raw" format="Framed" sample_bytes="{ROW.size}" />'
    text = f"<header>\n{data}\n<fields>\n{FIELDS.format(scale=scale, offset=offset)}</fields>\n</header>\n\n"
    frames = b""
    for begin in range(0, len(rows), per):
        body = b"".join(ROW.pack(*row) for row in rows[begin : begin + per])
        frames += b"BIN " + struct.pack("<I", len(body) + 8) + body
    return text.encode() + frames + (b"" if end is None else f"END {len(rows)} {end}\n".encode())


def saved(folder: pathlib.Path, content: bytes) -> pathlib.Path:
    path = folder / "capture"
    path.write_bytes(content)
    return path


def by_pandablocks(content: bytes, folder: pathlib.Path) -> list[dict[str, NDArray[Any]]]:
    """Return what the package writes into its HDF5 files, one per arming; the files stay."""
    from pandablocks.connections import DataConnection
    from pandablocks.hdf import create_default_pipeline, stop_pipeline

    names = [str(folder / f"theirs_{number}.h5") for number in range(9)]
    pipeline = create_default_pipeline(iter(names), {})
    connection = DataConnection()
    connection.connect(scaled=False)
    for at in range(0, len(content), 41):
        for message in connection.receive_bytes(content[at : at + 41]):
            pipeline[0].queue.put_nowait(message)
    stop_pipeline(pipeline)
    found = []
    for name in names:
        if pathlib.Path(name).exists():
            with h5py.File(name) as file:
                found.append({column: one[()] for column, one in file.items()})
    return found


def rows_of(draw: st.DataObject, count: int) -> list[tuple[int, ...]]:
    start, total = st.integers(0, 10**12), st.integers(-(10**15), 10**15)
    one = st.tuples(st.integers(1, 10**6), st.integers(0, 9), st.integers(-(2**31), 2**31 - 1), start, total)
    return draw.draw(st.lists(one, min_size=count, max_size=count))


@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["Ok", "Disarmed"])), min_size=1, max_size=3),
    st.floats(-1e3, 1e3).filter(lambda one: abs(one) > 1e-6),
    st.floats(-1e3, 1e3),
    st.data(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_raw_captures_and_hdf5_are_in_the_units_that_pandablocks_computes(
    tmp_path_factory: pytest.TempPathFactory, arms: list[tuple[int, str]], scale: float, offset: float, draw: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("panda")
    rows = [rows_of(draw, count) for count, _ in arms]
    content = b"OK\n" + b"".join(arming(some, end, scale=scale, offset=offset) for some, (_, end) in zip(rows, arms, strict=True))
    theirs = by_pandablocks(content, folder)
    path = saved(folder, content)
    total = sum(map(len, rows))
    assert PANDA.probe(path, {}).frames == total
    ours = PANDA.read(path, 0, total, {})
    assert PANDA.units(path, {}) == dict.fromkeys(("COUNTER1.OUT.Min", "COUNTER1.OUT.Mean"), "um") | {"PCAP.TS_START.Value": "s"}
    for name, column in ours.items():
        np.testing.assert_allclose(column, np.concatenate([one[name] for one in theirs]), rtol=1e-13, atol=1e-10)
    for number, one in enumerate(theirs):  # and what the package has written is read as it stands there
        file = folder / f"theirs_{number}.h5"
        assert PANDA.probe(file, {}).frames == len(rows[number])
        for name, column in PANDA.read(file, 0, len(rows[number]), {}).items():
            np.testing.assert_array_equal(column, one[name])


def test_the_layout_of_the_packages_own_test_data_is_read(tmp_path: pathlib.Path) -> None:
    """10,000 rows as `tests/data_dumps/raw_dump.bin` of pandablocks holds them: gates of 125 ticks, means n and n."""
    rows = [(125, 0, one, 9 + 250 * (one - 1), 125 * one) for one in range(1, 10001)]
    path = saved(tmp_path, b"OK\n" + arming(rows, "Ok", per=900))
    found = PANDA.read(path, 0, 10000, {})
    np.testing.assert_allclose(found["COUNTER1.OUT.Mean"], np.arange(1, 10001))
    np.testing.assert_allclose(found["PCAP.TS_START.Value"], np.arange(1, 10001) * 2e-6 + 7.2e-8 - 2e-6)


def test_the_columns_of_a_file_that_is_being_written_need_not_be_of_one_length(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "panda.h5", "w") as file:
        for name, length in (("COUNTER1.OUT.Value", 5), ("INENC1.VAL.Mean", 3)):
            file.create_dataset(name, data=np.arange(1.0, 1 + length), maxshape=(None,), chunks=(2,))
    assert PANDA.probe(tmp_path / "panda.h5", {}).frames == 3
    counted = {"trigger": "COUNTER1.OUT.Value"}
    assert PANDA.probe(tmp_path / "panda.h5", counted).frames == 3
    np.testing.assert_array_equal(PANDA.read(tmp_path / "panda.h5", 1, 3, counted)["INENC1.VAL.Mean"], [2.0, 3.0])


def test_a_raw_mean_without_its_time_says_what_to_capture(tmp_path: pathlib.Path) -> None:
    content = arming([(4, 0, 1, 2, 20)], "Ok").replace(b"PCAP.GATE_DURATION", b"PCAP.BITS0")
    with pytest.raises(BadInput, match=r"COUNTER1\.OUT\.Mean is a raw sum over an unknown time: capture PCAP\.GATE_DURATION too"):
        PANDA.probe(saved(tmp_path, content), {})
    path = saved(tmp_path, arming([(4, 0, 1, 2, 20), (0, 0, 1, 2, 0)], "Ok"))
    np.testing.assert_array_equal(PANDA.read(path, 0, 2, {})["COUNTER1.OUT.Mean"], [5.0, np.nan])


def test_a_header_of_another_kind_is_named(tmp_path: pathlib.Path) -> None:
    content = arming([(4, 0, 1, 2, 20)], "Ok").replace(b'format="Framed"', b'format="ASCII"')
    with pytest.raises(BadInput, match=r"XML header and format ASCII; only framed captures .* ask for XML FRAMED SCALED"):
        PANDA.probe(saved(tmp_path, content), {})
    with pytest.raises(BadInput, match="END counts 2 lines of numbers, and it holds 1"):
        PANDA.probe(saved(tmp_path, arming([(4, 0, 1, 2, 20)], "Ok").replace(b"END 1", b"END 2")), {})


@example([(0, 4, "Data overrun")], False)  # two frames, of which the second may be written over
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.sampled_from(ENDS)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_loss_never_shifts_what_comes_after_it(tmp_path: pathlib.Path, arms: list[tuple[int, int, str]], running: bool) -> None:
    """Each trigger's value is its number, as the experiment counts; an arming that lost triggers has lost five."""
    content, truth, at = b"", dict[int, float](), 0
    for number, (missed, count, end) in enumerate(arms):
        values = range(at + missed, at + missed + count)
        last = number == len(arms) - 1
        content += arming([(1, 0, one, 0, one) for one in values], None if last and running else end, missed=missed, per=2)
        truth |= {one: float(one) for one in values}
        corrupt = (count % 2 or 2 if count else 0) if last and not running and end == "Data overrun" else 0
        at += missed + count + (5 if end in LOSSES else 0)
    path = saved(tmp_path, content)
    later = [any(count for _, count, _ in arms[number + 1 :]) for number in range(len(arms))]
    if any(end in LOSSES and more for (_, _, end), more in zip(arms, later, strict=True)):
        with pytest.raises(BadInput, match="nobody knows how many triggers it lost: capture a counter of triggers"):
            PANDA.probe(path, {})
        counted = {"trigger": "COUNTER1.OUT.Mean", "first_trigger": "0"}
        found = PANDA.read(path, 0, PANDA.probe(path, counted).frames, counted)["COUNTER1.OUT.Mean"]
        assert {one: value for one, value in enumerate(found) if np.isfinite(value)} == truth
        return
    extent = PANDA.probe(path, {})
    found = PANDA.read(path, 0, extent.frames, {})["COUNTER1.OUT.Mean"]
    assert {one: value for one, value in enumerate(found) if np.isfinite(value)} == truth
    assert [(one.first, one.last) for one in extent.missing] == ([(extent.frames - corrupt, extent.frames)] if corrupt else [])
    lost = arms[-1][2] in LOSSES and not running
    assert bool(extent.cut) == lost
    assert not lost or f"ended the capture with {arms[-1][2]!r}" in extent.cut


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 4), st.sampled_from(["any", "line"]))
def test_files_behind_a_capture_that_lost_triggers_are_not_put_in_its_holes(lengths: list[int], short: int, way: str) -> None:
    """A file for each line of six; one of them says that it lost triggers at its end."""
    short = min(short, len(lengths) - 1)
    cut = ["it lost triggers" if number == short else "" for number in range(len(lengths))]
    files = [FileFact(f"{number}", length, cut=why) for number, (length, why) in enumerate(zip(lengths, cut, strict=True))]
    scan = ScanPoints.of(6 * len(files), (len(files), 6))
    pieces = laid_out(files, scan, SourceConfig(match="*", frames_per_file=way), closed=True).pieces
    begins = [6 * number if way == "line" else sum(lengths[:number]) for number in range(len(lengths))]
    known = range(len(lengths)) if way == "line" else range(short + 1)
    assert [(one.start, one.stop) for one in pieces if one.path] == [(begins[at], begins[at] + lengths[at]) for at in known]
    holes = [one for one in pieces if one.trouble and one.start == begins[short] + lengths[short]]
    assert all(one.trouble == f"{short}: it lost triggers" for one in holes)
    assert holes or lengths[short] == 6
