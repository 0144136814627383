"""PandABox captures in four spellings, measured and made; rows go to the index of their trigger, or are refused."""

import json
import pathlib
import struct

import cbor2
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamtide import gridding, registry
from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished

PANDA = registry.find("formats", "panda")
HDF5 = registry.find("formats", "hdf5")
HEADER = """arm_time: 2026-01-01T00:00:00.000Z
missed: 0
process: {process}
format: ASCII
fields:
 COUNTER1.OUT double Value scale: 1 offset: 0 units:
 INENC1.VAL double Mean scale: 0.5 offset: 10 units: um
 PCAP.SAMPLES uint32 Value

"""


def text(rows: list[list[float]], process: str = "Scaled", end: str | None = None) -> str:
    numbers = "".join(" " + " ".join(map(str, row)) + "\n" for row in rows)
    return HEADER.format(process=process) + numbers + (f"END {len(rows)} Ok\n" if end is None else end)


def saved(folder: pathlib.Path, content: str | bytes) -> pathlib.Path:
    path = folder / "capture"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def framed(rows: list[tuple[float, float, int]], process: str) -> bytes:
    fields = (
        '<field name="COUNTER1.OUT" type="double" capture="Value" scale="1" offset="0" units="" />'
        '<field name="INENC1.VAL" type="double" capture="Mean" scale="0.5" offset="10" units="um" />'
        '<field name="PCAP.SAMPLES" type="uint32" capture="Value" />'
    )
    data = f'<data arm_time="2026-01-01T00:00:00Z" missed="0" process="{process}" format="Framed" sample_bytes="20" />'
    body = b"".join(struct.pack("<ddI", *row) for row in rows)
    frame = b"BIN " + struct.pack("<I", len(body) + 8) + body
    return f"OK\n<header>\n{data}\n<fields>{fields}</fields>\n</header>\n\n".encode() + frame + b"END %d Ok\n" % len(rows)


def messages(blocks: list[tuple[int, list[float]]]) -> list[bytes]:
    data = [{"message_type": "data", "frame_number": number, "x": values} for number, values in blocks]
    return [json.dumps(one).encode() for one in ({"message_type": "series-start"}, *data, {"message_type": "series-end"})]


def test_the_text_of_a_capture_is_columns_and_ends_where_it_ends(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, text([[1, 2.5, 4], [2, 3.5, 4], [3, 4.5, 4]]))
    assert PANDA.probe(path, {}).frames == 3
    found = PANDA.read(path, 1, 3, {})
    np.testing.assert_array_equal(found["INENC1.VAL.Mean"], [3.5, 4.5])
    growing = saved(tmp_path, text([[1, 2.5, 4]], end=" 2 3."))
    assert PANDA.probe(growing, {}).frames == 1, "a line that is still being written is none"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=5),
    st.sampled_from(["", "OK\n", "OK\r\n"]),
    st.booleans(),
)
def test_each_arming_goes_on_where_the_one_before_ended(
    tmp_path: pathlib.Path, arms: list[tuple[int, int]], greeting: str, ended: bool
) -> None:
    """As `nc panda 8889 > file` keeps a scan of several armings: OK, then a header, numbers and END for each of them."""
    content, expected = greeting, list[float]()
    for number, (missed, rows) in enumerate(arms):
        last = number == len(arms) - 1
        values = [float(len(expected) + missed + row) for row in range(rows)]
        part = text([[value, value, 4] for value in values], end=None if ended or not last else "")
        content += part.replace("missed: 0", f"missed: {missed}")
        expected += [np.nan] * missed + values
    while expected and np.isnan(expected[-1]):  # nobody knows of triggers after the last row
        expected.pop()
    path = saved(tmp_path, content)
    assert PANDA.probe(path, {}).frames == len(expected)
    np.testing.assert_array_equal(PANDA.read(path, 0, len(expected), {})["INENC1.VAL.Mean"], expected)


def test_an_end_that_counts_other_lines_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="END counts 9 lines of numbers, and it holds 2"):
        PANDA.probe(saved(tmp_path, text([[1, 2, 4], [2, 3, 4]], end="END 9 Data overrun\n")), {})


def test_armings_with_different_fields_are_refused(tmp_path: pathlib.Path) -> None:
    other = text([[1, 2, 4]]).replace("INENC1", "INENC2")
    with pytest.raises(BadInput, match="different fields"):
        PANDA.probe(saved(tmp_path, text([[1, 2, 4]]) + other), {})


def test_raw_is_scaled_by_the_header_and_a_raw_mean_by_its_samples(tmp_path: pathlib.Path) -> None:
    rows = [(1.0, 20.0, 4), (2.0, 40.0, 4)]
    for content in (text([list(row) for row in rows], "Raw"), framed(rows, "Raw")):
        found = PANDA.read(saved(tmp_path, content), 0, 2, {})
        np.testing.assert_array_equal(found["INENC1.VAL.Mean"], [20 / 4 * 0.5 + 10, 40 / 4 * 0.5 + 10])
    without = HEADER.format(process="Raw").replace(" PCAP.SAMPLES uint32 Value\n", "") + " 1 20\n"
    with pytest.raises(BadInput, match=r"INENC1\.VAL\.Mean is a raw sum over an unknown time: capture PCAP\.GATE_DURATION too"):
        PANDA.read(saved(tmp_path, without), 0, 1, {})


def test_the_framed_capture_is_the_text_one(tmp_path: pathlib.Path) -> None:
    rows = [(1.0, 2.5, 4), (2.0, 3.5, 4), (3.0, 4.5, 4)]
    one = PANDA.read(saved(tmp_path, framed(rows, "Scaled")), 0, 3, {})
    other = PANDA.read(saved(tmp_path, text([list(row) for row in rows])), 0, 3, {})
    assert one.keys() == other.keys()
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name])
    with pytest.raises(Unfinished, match="header is not complete"):
        PANDA.probe(saved(tmp_path, framed(rows, "Scaled")[:60]), {})


def test_json_blocks_go_where_their_frame_number_says(tmp_path: pathlib.Path) -> None:
    parts = messages([(0, [1.0, 2.0]), (4, [5.0])])
    for content in (b"\n".join(parts), b"".join(cbor2.dumps([part]) for part in parts)):
        path = saved(tmp_path, content)
        assert PANDA.probe(path, {}).frames == 5
        np.testing.assert_array_equal(PANDA.read(path, 1, 5, {})["x"], [2.0, np.nan, np.nan, 5.0])
    with pytest.raises(BadInput, match="go from 4 to 0 at row 1"):
        PANDA.probe(saved(tmp_path, b"\n".join(messages([(4, [5.0]), (0, [1.0])]))), {})


def test_a_lost_trigger_is_nan_at_its_index_also_in_hdf5(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, text([[1, 2.5, 4], [4, 3.5, 4]]))
    options = {"trigger": "COUNTER1.OUT.Value"}
    assert PANDA.probe(path, options).frames == 4
    np.testing.assert_array_equal(PANDA.read(path, 0, 4, options)["INENC1.VAL.Mean"], [2.5, np.nan, np.nan, 3.5])
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["number"], file["counts"] = [5, 6, 8], [10, 11, 12]
    given = {"counts": "counts", "trigger": "number", "first_trigger": "5"}
    assert HDF5.probe(tmp_path / "file.h5", given).frames == 4
    whole = HDF5.read(tmp_path / "file.h5", 0, 4, given)
    np.testing.assert_array_equal(whole["counts"], [10, 11, np.nan, 12])
    parts = [HDF5.read(tmp_path / "file.h5", at, at + 1, given)["counts"] for at in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole["counts"])
    with pytest.raises(BadInput, match="holds 4"):
        HDF5.read(tmp_path / "file.h5", 2, 5, given)


@pytest.mark.parametrize(
    ("numbers", "options", "sentence"),
    [
        ([1, 2, 1], {}, "go from 2 to 1 at row 2; the device was restarted"),
        ([1, 2, 2], {}, "go from 2 to 2 at row 2"),
        ([1.5, 2, 3], {}, "must be whole numbers"),
        ([1, np.nan, 3], {}, "must be whole numbers"),
        ([0, 1, 2], {}, "first trigger number is 0, below"),
        ([1, 2, 3], {"first_trigger": "one"}, "first_trigger is 'one'"),
        ([1, 2], {}, "has 2 rows, the others have 3"),
    ],
)
def test_trigger_numbers_that_say_nothing_are_refused(
    tmp_path: pathlib.Path, numbers: list[float], options: dict[str, str], sentence: str
) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["number"], file["x"] = numbers, np.zeros(3)
    with pytest.raises(BadInput, match=sentence):
        HDF5.probe(tmp_path / "file.h5", {"x": "x", "trigger": "number", **options})


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        (b"", Unfinished, "is empty"),
        (b"arm_time: now\nmissed: 0\n", Unfinished, "no fields"),
        (b"\x80\x04\x95 a pickle", BadInput, "not a PandABox capture"),
        (b"\x00\x01\x02", BadInput, "PandABox capture|no fields"),
        (text([[1, 2]]).encode(), BadInput, "one for each of the 3 fields"),
        (text([[1, 2, 3]]).replace(" 1 2 3", " 1 two 3").encode(), BadInput, "not a PandABox capture"),
        (b'{"message_type": "series-start"}\n', Unfinished, "no data in it"),
    ],
)
def test_what_is_no_capture_is_a_sentence(tmp_path: pathlib.Path, content: bytes, kind: type[BadInput], sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        PANDA.probe(saved(tmp_path, content), {})
    assert "\n" not in str(caught.value)


def test_the_sites_own_reading_of_a_measured_capture_is_ours(test_data: pathlib.Path) -> None:
    """CoSAXS: the recorded text stream against the JSON that the site made of it."""
    folder = test_data / "positions"
    ours = PANDA.read(folder / "cosaxs_together_pcapRAW.cbors", 0, 3, {"trigger": "COUNTER5.OUT.Value"})
    theirs = PANDA.read(folder / "cosaxs_together_pcap_proc.cbors", 0, 3, {})
    for name, other in (
        ("COUNTER5.OUT.Value", "FramesPerStep"),
        ("FMC_IN.VAL3.Min", "FMC_IN.VAL3.Min"),
        ("FMC_IN.VAL4.Mean", "FMC_IN.VAL4.Mean"),
        ("PCAP.TS_TRIG.Value", "timestamp"),
    ):
        np.testing.assert_allclose(ours[name], theirs[other], rtol=1e-9)
    long = folder / "cosaxs_pcaptest_pcapRAW.cbors"
    assert PANDA.probe(long, {}).frames == 6
    np.testing.assert_allclose(np.diff(PANDA.read(long, 0, 6, {})["PCAP.TS_TRIG.Value"]), 0.101, atol=1e-6)


def test_a_measured_energy_scan_has_every_trigger(test_data: pathlib.Path) -> None:
    path = test_data / "positions" / "dranspose_pcap-zmq.cbors"
    frames = PANDA.probe(path, {}).frames
    found = PANDA.read(path, 0, frames, {"trigger": "triggernumber"})
    np.testing.assert_array_equal(found["triggernumber"], np.arange(1, frames + 1))
    assert np.median(np.diff(found["energy"])) == pytest.approx(0.2, abs=0.01)
    albaem = PANDA.read(test_data / "xbic" / "albaem-dump.cbors", 0, 4, {})
    assert albaem["channel4"].min() > 4.7e-10


def test_a_measured_stxm_image_is_read_by_its_paths_and_laid_out_by_its_positions(test_data: pathlib.Path) -> None:
    """PolLux, NXstxm: 50 x 50 points, measured piece by piece, so that only the positions know where a point belongs."""
    where = "/entry1/instrument"
    options = {"x": f"{where}/sample_x/data", "y": f"{where}/sample_y/data", "counts": f"{where}/counter0/data"}
    path = test_data / "positions" / "pollux_Sample_Image_2021-03-16_095.hdf5"
    assert HDF5.probe(path, options).frames == 2500
    found = HDF5.read(path, 0, 2500, options)
    with h5py.File(path) as file:
        image, x, y = (file[f"entry1/{name}"][()] for name in ("counter0/data", "control/sample_x", "control/sample_y"))
    late = np.mean(found["x"]) - x.mean(), np.mean(found["y"]) - y.mean()  # the read-back lags behind
    grid = gridding.Grid(x[0] + late[0], y[0] + late[1], x[1] - x[0], y[1] - y[0], (50, 50))
    bins = gridding.binned(grid, found["x"], found["y"], found["counts"])
    assert bins.weight.sum() + bins.outside == 2500
    filled, guessed = gridding.nearest_fill(bins.mean())
    assert guessed.mean() < 0.2
    assert np.corrcoef(filled.ravel(), image.ravel())[0, 1] > 0.9
    assert np.corrcoef(gridding.by_order(found["counts"], (50, 50)).ravel(), image.ravel())[0, 1] < 0.7


@given(
    st.sampled_from(["Scaled", "Unscaled", "Raw"]), st.integers(0, 5), st.lists(st.integers(-1000, 1000), min_size=1, max_size=9)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_mode_of_the_header_gives_the_same_positions(
    tmp_path: pathlib.Path, process: str, missed: int, counts: list[int]
) -> None:
    """Mean counts x 0.5 + 3 um, ten samples an exposure; the server has done all of it, the average only, or nothing."""
    rows = {"Scaled": [0.5 * one + 3 for one in counts], "Unscaled": counts, "Raw": [10 * one for one in counts]}[process]
    body = "".join(f" {one} 10\n" for one in rows)
    header = HEADER_WITH_SAMPLES.format(process=process, missed=missed)
    (tmp_path / "panda.txt").write_text(header + body + f"END {len(rows)} Ok\n")
    assert PANDA.probe(tmp_path / "panda.txt", {}).frames == missed + len(counts)
    x = PANDA.read(tmp_path / "panda.txt", 0, missed + len(counts), {})["INENC1.VAL.Mean"]
    assert np.isnan(x[:missed]).all()
    np.testing.assert_allclose(x[missed:], [0.5 * one + 3 for one in counts])
    assert PANDA.units(tmp_path / "panda.txt", {}) == {"INENC1.VAL.Mean": "mm"}


HEADER_WITH_SAMPLES = """missed: {missed}
process: {process}
format: ASCII
fields:
 INENC1.VAL int32 Mean scale: 0.5 offset: 3 units: mm
 PCAP.SAMPLES uint32 Value

"""


def test_a_mode_that_nobody_knows_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "panda.txt").write_text(HEADER_WITH_SAMPLES.format(process="Averaged", missed=0) + " 1 10\nEND 1 Ok\n")
    with pytest.raises(BadInput, match="process: Averaged is not known, only Scaled, Unscaled and Raw"):
        PANDA.read(tmp_path / "panda.txt", 0, 1, {})
