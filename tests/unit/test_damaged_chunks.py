"""What is in a file is read; what is not there or damaged is told of the frames it touches: never zeros, never a crash."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import registry
from beamtide.errors import BadInput
from beamtide.formats import rows, unwritten
from beamtide.formats.base import FileFormat, LostFrames, Missing, Unfinished

PLAIN: FileFormat = registry.find("formats", "hdf5")
EIGER: FileFormat = registry.find("formats", "eiger")
PATH, SHAPE = "/entry/data/data", (6, 24, 20)
IMAGES = np.random.default_rng(0).poisson(3, SHAPE).astype("u4")
FILTERS: dict[str, Any] = {
    "bitshuffle-LZ4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "bitshuffle-Zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "LZ4": hdf5plugin.LZ4(),
    "Blosc": hdf5plugin.Blosc(),
    "Blosc2": hdf5plugin.Blosc2(),
    "Zstd": hdf5plugin.Zstd(),
    "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
}


def write(path: pathlib.Path, images: np.ndarray = IMAGES, per: int = 1, **options: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(PATH, data=images, chunks=(per, *images.shape[1:]), **options)
    return path


def read(known: FileFormat, path: pathlib.Path, first: int = 0, last: int = len(IMAGES)) -> np.ndarray:
    return np.asarray(known.read(path, first, last, {"frames": PATH})["frames"])


@pytest.mark.parametrize("known", [PLAIN, EIGER], ids=["hdf5", "eiger"])
@pytest.mark.parametrize("per", [1, 4])
@pytest.mark.parametrize("name", FILTERS)
def test_every_compression_is_read(tmp_path: pathlib.Path, name: str, per: int, known: FileFormat) -> None:
    path = write(tmp_path / "x.h5", per=per, **FILTERS[name])
    np.testing.assert_array_equal(read(known, path), IMAGES)
    np.testing.assert_array_equal(read(known, path, 3, 5), IMAGES[3:5])


@pytest.mark.parametrize("form", ["hdf5", "eiger"])
@pytest.mark.parametrize("name", ["bitshuffle-LZ4", "LZ4", "Blosc", "Zstd"])
def test_filters_are_there_whoever_imported_what_before(tmp_path: pathlib.Path, name: str, form: str) -> None:
    """In a fresh process, which nobody told of hdf5plugin, and in its forked child."""
    path = write(tmp_path / "x.h5", **FILTERS[name])
    program = f"""
import os, pathlib, sys
import numpy as np
from beamtide import registry
assert "hdf5plugin" not in sys.modules and "fabio" not in sys.modules
known = registry.find("formats", "{form}")
def total():
    return int(np.asarray(known.read(pathlib.Path({str(path)!r}), 0, 6, {{"frames": "{PATH}"}})["frames"]).sum())
if not os.fork():
    os._exit(total() != {IMAGES.sum()})
assert os.wait()[1] == 0
assert total() == {IMAGES.sum()}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_chunk_that_was_stored_without_its_filter_is_read(tmp_path: pathlib.Path) -> None:
    for name in ("bitshuffle-LZ4", "LZ4"):
        path = write(tmp_path / f"{name}.h5", **FILTERS[name])
        with h5py.File(path, "r+") as file:
            file[PATH].id.write_direct_chunk((1, 0, 0), IMAGES[1].tobytes(), filter_mask=1)
        for known in (PLAIN, EIGER):
            np.testing.assert_array_equal(read(known, path), IMAGES)


def damage(path: pathlib.Path, row: int, changes: dict[int, int], cut: int = 0) -> None:
    """Set bytes of a chunk, and cut some off its end."""
    with h5py.File(path, "r+") as file:
        mask, chunk = file[PATH].id.read_direct_chunk((row, 0, 0))
        broken = bytearray(chunk)
        for at, value in changes.items():
            broken[at % len(broken)] = value
        file[PATH].id.write_direct_chunk((row, 0, 0), bytes(broken[: len(broken) - cut]), mask)


def judge(known: FileFormat, path: pathlib.Path, damaged: int) -> None:
    """All frames but the damaged one are as they were; that one is told, or is what its bytes say."""
    lost: tuple[Missing, ...] = ()
    try:
        np.testing.assert_array_equal(np.delete(read(known, path), damaged, 0), np.delete(IMAGES, damaged, 0))
    except LostFrames as error:
        lost = error.missing
    for one in lost:
        assert (one.first, one.last) == (damaged, damaged + 1)
        assert path.name in one.why
        for first, last in ((0, damaged), (damaged + 1, len(IMAGES))):
            np.testing.assert_array_equal(read(known, path, first, last), IMAGES[first:last])


@pytest.mark.parametrize("name", ["bitshuffle-LZ4", "LZ4", "Blosc", "bitshuffle-Zstd"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_damaged_chunk_ends_the_process_or_costs_another_frame(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    """Damaged most where lengths stand; pytest itself is the process that must survive."""
    path = write(tmp_path_factory.mktemp("damaged") / "x.h5", **FILTERS[name])
    row = data.draw(st.integers(0, len(IMAGES) - 1))
    where = st.integers(0, 40) | st.integers(0, 4000)
    damage(
        path, row, data.draw(st.dictionaries(where, st.integers(0, 255), min_size=1, max_size=6)), data.draw(st.integers(0, 9))
    )
    judge(data.draw(st.sampled_from([PLAIN, EIGER])), path, row)


def test_lengths_in_a_chunk_that_lead_beyond_it_are_seen_before_it_is_decompressed(tmp_path: pathlib.Path) -> None:
    """Each of these makes the decoder read or write where nothing is."""
    path = write(tmp_path / "x.h5", **FILTERS["bitshuffle-LZ4"])
    whole = path.read_bytes()
    for changes in (
        {12: 0x7F},
        {12: 0xFF},
        {8: 0x7F},
        {8: 0, 9: 0, 10: 0, 11: 0},
        {10: 0xFF, 11: 0xF8},
        {11: 9},
        {14: 0xFF, 15: 0xFF},
    ):
        path.write_bytes(whole)
        damage(path, 2, changes)
        with pytest.raises(LostFrames, match=r"x\.h5: frame 2 of /entry/data/data cannot be decompressed .* damaged"):
            read(EIGER, path, 0, 4)


def test_a_decoder_that_crashes_costs_its_frame_and_says_so(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.h5", **FILTERS["LZ4"])
    real = h5py.Dataset.read_direct

    def crash(self: h5py.Dataset, target: np.ndarray, source: slice) -> None:
        if source.start <= 4 < source.stop:
            os.abort()
        real(self, target, source)

    monkeypatch.setattr(h5py.Dataset, "read_direct", crash)
    with pytest.raises(LostFrames, match="makes the decoder crash, SIGABRT") as caught:
        read(PLAIN, path)
    assert [(one.first, one.last) for one in caught.value.missing] == [(4, 5)]


# what was never written


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_frames_that_were_never_written_are_missing_and_the_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Against a list that says what was written."""
    count = data.draw(st.integers(1, 9))
    per = data.draw(st.integers(1, min(3, count)))
    there = data.draw(st.lists(st.booleans(), min_size=-(-count // per), max_size=-(-count // per)))
    path = tmp_path_factory.mktemp("holes") / "x.h5"
    images = np.arange(count * 12, dtype="u2").reshape(count, 3, 4) + 1
    options = data.draw(st.sampled_from([{}, FILTERS["bitshuffle-LZ4"], {"compression": "gzip"}]))
    with h5py.File(path, "w") as file:
        made = file.create_dataset(PATH, images.shape, "u2", chunks=(per, 3, 4), **options)
        for chunk, whether in enumerate(there):
            if whether:
                made[chunk * per : (chunk + 1) * per] = images[chunk * per : (chunk + 1) * per]
    expected = [row for row in range(count) if not there[row // per]]
    for known in (PLAIN, EIGER):
        found = known.probe(path, {"frames": PATH})
        assert found.frames == count
        assert [row for one in found.missing for row in range(one.first, one.last)] == expected
        for row in range(count):
            if row in expected:
                with pytest.raises(LostFrames, match="never written"):
                    read(known, path, row, row + 1)
            else:
                np.testing.assert_array_equal(read(known, path, row, row + 1)[0], images[row])


def test_a_dataset_that_was_laid_out_and_never_written(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(PATH, (4, 2, 2), "u2")
    found = PLAIN.probe(tmp_path / "x.h5", {"frames": PATH})
    assert [(one.first, one.last) for one in found.missing] == [(0, 4)]
    assert f"x.h5: {PATH} was laid out, and never written" in found.missing[0].why


def test_a_frame_of_which_a_part_was_never_written(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        made = file.create_dataset(PATH, (3, 4, 4), "u2", chunks=(1, 2, 4))
        made[0], made[1, :2] = 1, 1
    found = PLAIN.probe(tmp_path / "x.h5", {"frames": PATH})
    assert [(one.first, one.last, one.why.partition(": ")[2]) for one in found.missing] == [
        (1, 2, f"{PATH}: a part of this frame was never written"),
        (2, 3, f"{PATH}: this frame was laid out, and never written"),
    ]


# virtual datasets, as facilities write them


def odin(folder: pathlib.Path, count: int, writers: int) -> dict[int, tuple[str, int]]:
    """Diamond, Odin data file writers: frame i in file i mod n, and one virtual source per writer. Source: odin-data."""
    layout = h5py.VirtualLayout((count, 2, 2), "u2")
    where = {}
    for number in range(writers):
        frames = range(number, count, writers)
        if not frames:
            continue
        write(folder / f"scan_{number:06d}.src", np.stack([np.full((2, 2), frame, "u2") for frame in frames]))
        layout[number::writers] = h5py.VirtualSource(f"scan_{number:06d}.src", PATH, (len(frames), 2, 2))
        where |= {frame: (f"scan_{number:06d}.src", at) for at, frame in enumerate(frames)}
    with h5py.File(folder / "all.h5", "w") as file:
        file.create_virtual_dataset(PATH, layout, fillvalue=0)
    return where


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_virtual_dataset_lacks_exactly_what_its_sources_lack(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("odin")
    count, writers = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    where = odin(folder, count, writers)
    gone = data.draw(st.sets(st.sampled_from(sorted({file for file, _ in where.values()})), max_size=2))
    short = data.draw(st.sampled_from(sorted({file for file, _ in where.values()})))
    keep = data.draw(st.integers(0, 4))
    with h5py.File(folder / short, "r+") as file:
        images = file[PATH][:keep]
    write(folder / short, images) if keep else (folder / short).unlink()
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    expected = [frame for frame, (file, at) in sorted(where.items()) if file in gone or (file == short and at >= keep)]
    found = PLAIN.probe(folder / "all.h5", {"frames": PATH})
    assert [row for one in found.missing for row in range(one.first, one.last)] == expected
    assert all(any(file in one.why for file, _ in where.values()) for one in found.missing)
    for frame in set(range(count)) - set(expected):
        assert (read(PLAIN, folder / "all.h5", frame, frame + 1) == frame).all()
        assert (read(EIGER, folder / "all.h5", frame, frame + 1) == frame).all()
    for frame in expected:
        with pytest.raises(LostFrames):
            read(PLAIN, folder / "all.h5", frame, frame + 1)


def test_a_frame_of_several_modules_needs_all_of_them(tmp_path: pathlib.Path) -> None:
    """DESY, a Lambda of several modules in one virtual image; what no module covers is no loss."""
    layout = h5py.VirtualLayout((4, 5, 2), "u2")
    for module in range(2):
        write(tmp_path / f"m{module}.src", np.full((4 - module, 2, 2), 7, "u2"))
        layout[:, 3 * module : 3 * module + 2] = h5py.VirtualSource(f"m{module}.src", PATH, (4, 2, 2))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset(PATH, layout)
    found = PLAIN.probe(tmp_path / "all.h5", {"frames": PATH})
    assert [(one.first, one.last) for one in found.missing] == [(3, 4)]
    assert "m1.src has only 3 frames" in found.missing[0].why


def test_one_file_per_scan_with_links_and_virtual_lines(tmp_path: pathlib.Path) -> None:
    """ESRF, bliss: the file of the scan links Lima files, one per line, as a virtual dataset; a nested one is followed, too."""
    inner = h5py.VirtualLayout((6, 2, 2), "u2")
    for line in range(3):
        with h5py.File(tmp_path / f"lima_{line:04d}.src", "w") as file:
            made = file.create_dataset("entry_0000/measurement/data", (2, 2, 2), "u2", chunks=(1, 2, 2))
            made[: 2 - (line == 1)] = line + 1
        inner[2 * line : 2 * line + 2] = h5py.VirtualSource(f"lima_{line:04d}.src", "entry_0000/measurement/data", (2, 2, 2))
    with h5py.File(tmp_path / "scan0001.h5", "w") as file:
        file.create_virtual_dataset("1.1/instrument/detector/data", inner)
        file["1.1/measurement/detector"] = h5py.SoftLink("/1.1/instrument/detector/data")
    with h5py.File(tmp_path / "dataset.h5", "w") as file:
        file["1.1"] = h5py.ExternalLink("scan0001.h5", "/1.1")
    options = {"frames": "/1.1/measurement/detector"}
    found = PLAIN.probe(tmp_path / "dataset.h5", options)
    assert [(one.first, one.last) for one in found.missing] == [(3, 4)]
    assert "lima_0001.src" in found.missing[0].why
    assert PLAIN.read(tmp_path / "dataset.h5", 4, 6, options)["frames"].tolist() == np.full((2, 2, 2), 3).tolist()


def test_sources_that_are_counted_in_their_names(tmp_path: pathlib.Path) -> None:
    """HDF5's own pattern for writers that open a file per block: "%b" counts blocks without an end."""
    layout = h5py.VirtualLayout((6, 2), "u2", maxshape=(None, 2))
    space = h5py.h5s.create_simple((6, 2), (h5py.h5s.UNLIMITED, 2))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (2, 2), (2, 2))
    source = h5py.h5s.create_simple((2, 2))
    for block in (0, 2):
        write(tmp_path / f"block_{block}.src", np.full((2, 2), block + 1, "u2"))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_virtual(space, b"block_%b.src", PATH.encode(), source)
        kind = h5py.h5t.STD_U16LE
        h5py.h5d.create(file.create_group("entry/data").id, b"data", kind, space, properties)
        file.attrs["shape"] = str(layout.shape)
    with h5py.File(tmp_path / "all.h5") as file:
        length = len(file[PATH])
    found = PLAIN.probe(tmp_path / "all.h5", {"frames": PATH})
    assert found.frames == length
    if length > 2:
        assert [(one.first, one.last) for one in found.missing] == [(2, 4)]
        assert "block_1.src" in found.missing[0].why


# Eiger: master and data files


def eiger_series(folder: pathlib.Path, counts: list[int], per: int) -> None:
    """DECTRIS file writer: s_master.h5 links s_data_NNNNNN.h5; each says which images it holds. KnownFrames by SIMPLON 1.8."""
    with h5py.File(folder / "s_master.h5", "w") as master:
        for number, count in enumerate(counts, 1):
            low = 1 + (number - 1) * per
            images = np.stack([np.full((2, 2), low + at, "u4") for at in range(count)])
            path = write(folder / f"s_data_{number:06d}.h5", images, **FILTERS["bitshuffle-LZ4"])
            with h5py.File(path, "r+") as file:
                file[PATH].attrs.update({"image_nr_low": low, "image_nr_high": low + count - 1})
            master[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(path.name, PATH)


def test_a_master_file_is_read_in_the_order_of_its_data_files(tmp_path: pathlib.Path) -> None:
    eiger_series(tmp_path, [3] * 11 + [2], 3)
    found = EIGER.probe(tmp_path / "s_master.h5", {})
    assert (found.frames, found.missing) == (35, ())
    values = np.asarray(EIGER.read(tmp_path / "s_master.h5", 1, 35, {})["frames"])[:, 0, 0]
    assert values.tolist() == list(range(2, 36))
    assert EIGER.probe(tmp_path / "s_data_000002.h5", {}).count == 3


def test_a_data_file_that_is_not_there_or_short_leaves_its_images_out_and_moves_no_other(tmp_path: pathlib.Path) -> None:
    eiger_series(tmp_path, [3, 2, 3, 3], 3)
    (tmp_path / "s_data_000003.h5").unlink()
    found = EIGER.probe(tmp_path / "s_master.h5", {})
    assert found.frames == 12
    assert [(one.first, one.last) for one in found.missing] == [(5, 6), (6, 9)]
    assert "s_data_000003.h5, which is not there (yet)" in found.missing[1].why
    assert np.asarray(EIGER.read(tmp_path / "s_master.h5", 9, 12, {})["frames"])[:, 0, 0].tolist() == [10, 11, 12]
    with pytest.raises(LostFrames):
        EIGER.read(tmp_path / "s_master.h5", 4, 7, {})


# links, locks, half of a file


def test_a_link_whose_file_is_not_there_is_told_as_that(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["entry/a"] = h5py.ExternalLink("later.h5", "/data")
        file["entry/b"] = h5py.SoftLink("/entry/c")
        file["far"] = h5py.ExternalLink("later.h5", "/")
    for where in ("/entry/a", "/far/data"):
        with pytest.raises(Unfinished, match=r"is a link to the file later\.h5, which is not there \(yet\)"):
            PLAIN.probe(tmp_path / "m.h5", {"x": where})
    with pytest.raises(BadInput, match=r"/entry/b is a link to /entry/c, which is not in the file"):
        PLAIN.probe(tmp_path / "m.h5", {"x": "/entry/b"})
    write(tmp_path / "later.h5")
    with pytest.raises(Unfinished, match=r"is a link to /data in .*later\.h5, which has none there \(yet\)"):
        PLAIN.probe(tmp_path / "m.h5", {"x": "/entry/a"})


def test_a_file_system_without_locks_is_told_with_the_way_out(tmp_path: pathlib.Path) -> None:
    from beamtide.formats.opening import why_not

    said = "[Errno 37] Unable to synchronously open file (unable to lock file, errno = 37, error message = 'No locks available')"
    found = why_not(tmp_path / "x.h5", OSError(37, said))
    assert not isinstance(found, Unfinished)
    assert "HDF5_USE_FILE_LOCKING=FALSE" in str(found)
    assert "still being written, or damaged" not in str(found)
    held = why_not(tmp_path / "x.h5", OSError(11, "Unable to open file (unable to lock file, errno = 11, error message = '…')"))
    assert isinstance(held, Unfinished)
    assert "still being written" in str(held)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"\x89HD", "has no beginning of an HDF5 file"), (b"\0" * 99, "has no beginning"), (None, "is cut off")],
)
def test_half_of_a_file_is_told_in_its_own_words(tmp_path: pathlib.Path, content: bytes | None, sentence: str) -> None:
    path = write(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes()[:-700] if content is None else content)
    with pytest.raises(Unfinished, match=sentence):
        PLAIN.probe(path, {"frames": PATH})


# triggers, stacks


def test_a_lost_trigger_of_an_image_is_missing_and_not_zero(tmp_path: pathlib.Path) -> None:
    """APS, areaDetector's HDF5 plugin: the attribute NDArrayUniqueId counts frames."""
    path = write(tmp_path / "x.h5", IMAGES[:4])
    with h5py.File(path, "r+") as file:
        file["entry/instrument/NDAttributes/NDArrayUniqueId"] = [11, 12, 14, 15]
    options = {"frames": PATH, "trigger": "/entry/instrument/NDAttributes/NDArrayUniqueId", "first_trigger": "10"}
    found = PLAIN.probe(path, options)
    assert (found.frames, found.begin, found.count) == (6, 1, 0)
    assert [(one.first, one.last) for one in found.missing] == [(0, 1), (3, 4)]
    np.testing.assert_array_equal(PLAIN.read(path, 4, 6, options)["frames"], IMAGES[2:4])
    with pytest.raises(LostFrames, match="lost the trigger"):
        PLAIN.read(path, 2, 5, options)


def test_lines_and_columns_of_a_stack_are_points(tmp_path: pathlib.Path) -> None:
    path, options = write(tmp_path / "x.h5", IMAGES), {"frames": PATH, "point_axes": "2"}
    assert PLAIN.probe(path, {"frames": PATH}).shape == IMAGES.shape
    assert PLAIN.probe(path, options).frames == 6 * 24
    np.testing.assert_array_equal(PLAIN.read(path, 20, 60, options)["frames"], IMAGES.reshape(-1, 20)[20:60])


def test_reasons_are_ranges(tmp_path: pathlib.Path) -> None:
    found = unwritten.KnownFrames()
    found.lacks("a", np.array([1, 2]), 6)
    found.lacks("b", np.array([2, 3, 5]), 6)
    assert found.missing(10) == (Missing(11, 13, "a"), Missing(13, 14, "b"), Missing(15, 16, "b"))
    assert rows.has_bitshuffle()
