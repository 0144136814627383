"""`format: fabio`: the numbers of fabio's own users, at the index of their file; what is not an image is a sentence."""

import base64
import hashlib
import io
import pathlib
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

import fabio
import numpy as np
import pytest
import tifffile
from fabio.TiffIO import TiffIO
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beamtide import registry
from beamtide.config.models import SourceConfig
from beamtide.errors import BadInput
from beamtide.files.layout import laid_out
from beamtide.files.watch import FileWatch
from beamtide.files.ways import ScanPoints
from beamtide.formats.base import FileFormat, LostFrames, Unfinished

FABIO: FileFormat = registry.find("formats", "fabio")
Images = NDArray[Any]
EDF_NAMES = {
    "i1": "SignedByte", "u1": "UnsignedByte", "i2": "SignedShort", "u2": "UnsignedShort", "i4": "SignedInteger",
    "u4": "UnsignedInteger", "i8": "Signed64", "u8": "Unsigned64", "f4": "FloatValue", "f8": "DoubleValue",
}  # fmt: skip


def edf(images: Images, order: str = "<", end: bytes = b"") -> bytes:
    """EDF as its definition says, one header of 512 bytes before each frame."""
    name, file = EDF_NAMES[images.dtype.str[1:]], io.BytesIO()
    for number, image in enumerate(images):
        content = image.astype(image.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
        facts = {
            "HeaderID": f"EH:{number + 1:06d}:000000:000000",
            "Image": number + 1,
            "ByteOrder": "LowByteFirst" if order == "<" else "HighByteFirst",
            "DataType": name,
            "Dim_1": image.shape[1],
            "Dim_2": image.shape[0],
            "Size": len(content),
            "counter_pos": "1 2 3",
        }
        text = "{\n" + "".join(f"{key} = {value} ;\n" for key, value in facts.items())
        file.write(text.ljust(510).encode() + b"}\n" + content)
    return file.getvalue() + end


def tiff(images: Images, order: str = "<", rows: int | None = None) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=order) as pages:
        for image in images:
            pages.write(image, contiguous=False, metadata=None, rowsperstrip=rows, photometric="minisblack")
    return file.getvalue()


def cbf(images: Images, order: str = "<") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.cbf"
        header = {"_array_data.header_convention": '"PILATUS_1.2"', "Exposure_time": "0.1 s"}
        fabio.cbfimage.CbfImage(data=images[0], header=header).write(str(path))
        return path.read_bytes()


WRITERS = {"edf": edf, "tif": tiff, "cbf": cbf}


@st.composite
def image_files(draw: st.DrawFn) -> tuple[str, Images, bytes]:
    """Draw a kind of file, images, and the file's content."""
    kind = draw(st.sampled_from(sorted(WRITERS)))
    count = 1 if kind == "cbf" else draw(st.integers(1, 4))
    shape = count, draw(st.integers(1, 9)), draw(st.integers(1, 9))
    kinds = ["i1", "u1", "i2", "u2", "i4", "u4"] + ([] if kind == "cbf" else ["f4", "f8", "u8", "i8"])
    dtype = np.dtype(draw(st.sampled_from(kinds)))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype.kind == "f":
        images = chance.normal(size=shape).astype(dtype)
    else:
        info = np.iinfo(dtype)
        images = chance.integers(info.min, info.max, shape, dtype, endpoint=True)
        images.flat[0] = info.max if dtype.kind == "u" else -2
    return kind, images, WRITERS[kind](images, draw(st.sampled_from("<>")))


def saved(folder: pathlib.Path, content: bytes, name: str = "scan_1.tif") -> pathlib.Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: pathlib.Path, first: int, last: int) -> Images:
    return np.asarray(FABIO.read(path, first, last, {})["frames"])


@given(image_files(), st.data())
@settings(max_examples=150, deadline=None)
def test_numbers_types_and_signs_are_those_of_fabio(drawn: tuple[str, Images, bytes], data: st.DataObject) -> None:
    kind, images, content = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = saved(pathlib.Path(folder), content, f"scan_1.{kind}")
        assert FABIO.probe(path, {}).frames == len(images)
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(images))] * 2)))
        found = read(path, first, last)
        assert found.dtype == images.dtype
        np.testing.assert_array_equal(found, images[first:last])
        with fabio.open(str(path)) as naive:
            assert naive.nframes == len(images)
            for row in range(first, last):
                np.testing.assert_array_equal(found[row - first], naive.get_frame(row).data)


@given(image_files(), st.data())
@settings(max_examples=150, deadline=None)
def test_a_file_that_is_cut_off_anywhere_is_unfinished_or_has_fewer_frames(
    drawn: tuple[str, Images, bytes], data: st.DataObject
) -> None:
    kind, images, content = drawn
    size = data.draw(st.integers(0, len(content) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = saved(pathlib.Path(folder), content[:size], f"x.{kind}")
        try:
            frames = FABIO.probe(path, {}).frames
        except Unfinished:
            return
        np.testing.assert_array_equal(read(path, 0, frames), images[:frames])


@given(image_files(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_a_sentence(drawn: tuple[str, Images, bytes], data: st.DataObject) -> None:
    kind, _, content = drawn
    spoilt = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = saved(pathlib.Path(folder), bytes(spoilt), f"x.{kind}")
        said = []
        try:
            frames = FABIO.probe(path, {}).frames
            assert len(read(path, 0, frames)) == frames
        except BadInput as error:
            said = str(error).splitlines()
        assert len(said) < 2


def test_a_cbf_whose_checksum_is_another_is_lost_and_not_read(tmp_path: pathlib.Path) -> None:
    content = bytearray(cbf(np.arange(120, dtype=np.int32).reshape(1, 10, 12)))
    content[content.index(b"\x0c\x1a\x04\xd5") + 40] ^= 1
    path = saved(tmp_path, bytes(content), "x.cbf")
    assert FABIO.probe(path, {}).frames == 1
    with pytest.raises(LostFrames, match=r"x\.cbf: frame 0 cannot be read \(the MD5 of its image is"):
        read(path, 0, 1)


def test_a_frame_that_cannot_be_read_costs_only_itself(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, edf(np.arange(60, dtype=np.int32).reshape(3, 4, 5)))
    frames = FABIO.read(path, 0, 3, {})["frames"]
    path.write_bytes(edf(np.arange(60, dtype=np.int32).reshape(3, 4, 5))[:1700])
    assert frames[0].tolist() == np.arange(20).reshape(4, 5).tolist()
    with pytest.raises(LostFrames) as caught:
        frames[2]
    assert [(one.first, one.last) for one in caught.value.missing] == [(2, 3)]


IMAGES = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def patched(content: bytes, tag: int, kind: int, many: int, value: int) -> bytes:
    """Return a little-endian TIFF with another tag in its first page."""
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    for number in range(count):
        place = at + 2 + 12 * number
        if struct.unpack_from("<H", content, place)[0] == tag:
            return content[:place] + struct.pack("<HHII", tag, kind, many, value) + content[place + 12 :]
    raise AssertionError(tag)


def in_a_circle(content: bytes) -> bytes:
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    place = at + 2 + 12 * count
    return content[:place] + content[4:8] + content[place + 4 :]


def written(name: str, **how: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, **how)
    return file.getvalue()


def hostile() -> list[tuple[str, bytes, str]]:
    one = tiff(IMAGES[:1])
    rgb = written("rgb", data=np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    big = edf(IMAGES).replace(b"Dim_1 = 4 ;\n", b"Dim_1=99999;")
    return [
        ("circle.tif", in_a_circle(one), "pages form a circle"),
        ("rgb.tif", rgb, "is a TIFF in colours"),
        ("zip.tif", written("z", data=IMAGES[0], compression="zlib"), "compressed with deflate; save it without"),
        ("tiles.tif", written("t", data=np.zeros((32, 32), np.uint16), tile=(16, 16)), "in tiles"),
        ("imagej.tif", written("i", data=IMAGES, imagej=True, truncate=True), "is a stack of 2 images of ImageJ"),
        ("huge.tif", patched(one, 256, 4, 1, 2**31), "strips of 24 bytes are not 3 x 2147483648 pixels"),
        ("strips.tif", patched(one, 279, 4, 1, 8), "1 strips of 8 bytes are not 3 x 4 pixels of uint16"),
        ("mixed.tif", tiff(IMAGES[:1])[:0] + _mixed(), "page 1 is 5 x 4 pixels of uint16, and those before it 3 x 4"),
        ("bigtiff.tif", written("b", data=IMAGES, bigtiff=True), "BigTIFF"),
        ("huge.edf", big, "header says 24 bytes for 3 x 99999 pixels"),
        ("other.edf", edf(IMAGES).replace(b"counter_pos = 1 2 3", b"EDF_BinaryFileName=../secret"), "lie in another file"),
        ("packed.edf", edf(IMAGES).replace(b"counter_pos = 1 2 3", b"Compression = Gzip "), "EDF compressed with Gzip"),
        ("order.edf", edf(IMAGES).replace(b"LowByteFirst", b"            "), "no ByteOrder"),
        ("cube.edf", edf(IMAGES).replace(b"counter_pos = 1 2 3", b"Dim_3 = 2          "), "DIM_1, DIM_2, DIM_3"),
        ("other.cbf", cbf(IMAGES[:1]).replace(b"x-CBF_BYTE_OFFSET", b"x-CBF_PACKED     "), "compressed with x-CBF_PACKED"),
        ("huge.cbf", cbf(IMAGES[:1]).replace(b"Second-Dimension: 3", b"Second-Dimension: 9"), "9 x 4 pixels in .* cannot be"),
        ("two.cbf", cbf(IMAGES[:1]) + b"x" * 9000, "behind its first image; write one image a file"),
        ("text.cbf", b"###CBF: VERSION 1.5\n" + b"# nothing\n" * 4000, "without an image behind a header"),
        ("page.tif", b"<!DOCTYPE html><p>404", "looks like an HTML page"),
        ("x.tif", b"\x1f\x8b\x08 gzip", "compressed with gzip: unpack it"),
        ("x.npy", b"\x93NUMPY\x01\0v\0", "a NumPy array"),
        ("x.h5", b"\x89HDF\r\n\x1a\n rest", "no image that format fabio reads"),
        ("noise.tif", b"\x01\x02\x03\x04 noise \xff\xfe", r"it begins with b'\\x01"),
    ]  # fmt: skip


def _mixed() -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as pages:
        for shape in ((3, 4), (5, 4)):
            pages.write(np.zeros(shape, np.uint16), contiguous=False, metadata=None)
    return file.getvalue()


@pytest.mark.parametrize(("name", "content", "sentence"), hostile(), ids=[name for name, _, _ in hostile()])
def test_what_is_not_read_as_it_was_measured_is_refused(tmp_path: pathlib.Path, name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        FABIO.probe(saved(tmp_path, content, name), {})
    assert not isinstance(caught.value, Unfinished), "waiting does not help"


def test_an_edf_with_a_general_block(tmp_path: pathlib.Path) -> None:
    """As the definition allows: a first block without numbers, whose values hold for all that follow."""
    general = "{\nEDF_DataFormatVersion = 2.40 ;\nEDF_BinarySize = 0 ;\nByteOrder = LowByteFirst ;\n".ljust(510).encode() + b"}\n"
    path = saved(tmp_path, general + edf(IMAGES), "x.edf")
    assert FABIO.probe(path, {}).frames == fabio.open(str(path)).nframes == 2
    np.testing.assert_array_equal(read(path, 0, 2), IMAGES)


def test_options_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BadInput, match="format fabio has none, but 'frames' is given"):
        FABIO.probe(saved(tmp_path, tiff(IMAGES)), {"frames": "/entry/data"})


def test_a_measured_image(test_data: pathlib.Path) -> None:
    path = test_data / "xrd" / "CeO2_Pilatus1M.tif"
    np.testing.assert_array_equal(read(path, 0, 1)[0], fabio.open(str(path)).data)


def test_without_fabio_the_format_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import runpy

    from beamtide.formats import fabio_images

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs the package fabio: pip install 'beamtide\[images\]'"):
        runpy.run_path(fabio_images.__file__)


# files over indexes


def files_of(folder: pathlib.Path, numbers: Sequence[int], first: int) -> dict[int, str]:
    """Write one frame a file, of which the value is the index that it was measured at; return index -> file."""
    found = {}
    for index in numbers:
        name = f"scan_1_{first + index:05d}.tif"
        (folder / name).write_bytes(tiff(np.full((1, 2, 3), index, np.uint16)))
        found[index] = name
    return found


@given(st.integers(2, 12), st.integers(2, 5), st.integers(0, 1), st.data())
@settings(max_examples=60, deadline=None)
@example(3, 3, 1, None)
def test_one_frame_a_file_a_lost_file_is_a_hole_in_its_place(lines: int, width: int, first: int, data: Any) -> None:
    points = lines * width
    lost = set() if data is None else data.draw(st.sets(st.integers(0, points - 1), max_size=points // 2))
    damaged = set() if data is None else data.draw(st.sets(st.integers(0, points - 1), max_size=2)) - lost
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        files = files_of(folder, sorted(set(range(points)) - lost), first)
        for index in damaged:
            (folder / files[index]).write_bytes(b"<html>")
        source = SourceConfig(match="{scan}_*.tif", format="fabio", first=first)
        facts = FileWatch(folder, "scan_1", source).look(0.0)
        found = laid_out(facts, ScanPoints.of(points, (lines, width)), source, closed=True)
        there = set(files) - damaged
        if len(there) < 2:  # nothing shows how long files are, or which part of their names counts
            return
        for piece in found.pieces:
            for index in range(piece.start, piece.stop):
                if piece.path:
                    image = read(folder / piece.path, piece.first + index - piece.start, piece.first + index - piece.start + 1)
                    assert image[0, 0, 0] == index
                else:
                    assert index not in there, piece.trouble
        assert {index for one in found.pieces if one.path for index in range(one.start, one.stop)} == there


def test_an_edf_header_that_leads_back_is_refused(tmp_path: pathlib.Path) -> None:
    """Who follows it reads the same header for ever."""
    path = tmp_path / "back.edf"
    path.write_bytes("{\nEDF_DataFormatVersion = 2.40 ;\nEDF_BinarySize = -512 ;\n".ljust(510).encode() + b"}\n" + b"x" * 100)
    with pytest.raises(BadInput, match="general header says -512 bytes"):
        FABIO.probe(path, {})


def test_a_text_in_a_tiff_that_is_longer_than_the_file_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "long.tif"
    TiffIO(str(path), "wb+").writeImage(np.zeros((5, 7), "u2"))
    content = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry) == (305,):
            struct.pack_into("<I", content, entry + 4, 600_000_000)
    path.write_bytes(content)
    with pytest.raises(Unfinished, match="its tag 305 leads to"):
        FABIO.probe(path, {})


def dectris(image: NDArray[np.int32]) -> bytes:
    """A miniCBF as a Pilatus writes it: lines end with CR and LF, zeros behind the image. Small differences take one byte."""
    steps = np.diff(image.ravel(), prepend=0)
    assert abs(steps).max() < 128
    packed = steps.astype(np.int8).tobytes()
    head = [
        "###CBF: VERSION 1.5, CBFlib v0.7.8 - SLS/DECTRIS PILATUS detectors",
        "",
        "data_scan_1_00001",
        "",
        '_array_data.header_convention "PILATUS_1.2"',
        "_array_data.header_contents",
        ";",
        "# Detector: PILATUS 300K, S/N 3-0101",
        "# Pixel_size 172e-6 m x 172e-6 m",
        "# Exposure_time 0.0970 s",
        "# Wavelength 1.0000 A",
        ";",
        "",
        "_array_data.data",
        ";",
        "--CIF-BINARY-FORMAT-SECTION--",
        "Content-Type: application/octet-stream;",
        '     conversions="x-CBF_BYTE_OFFSET"',
        "Content-Transfer-Encoding: BINARY",
        f"X-Binary-Size: {len(packed)}",
        "X-Binary-ID: 1",
        'X-Binary-Element-Type: "signed 32-bit integer"',
        "X-Binary-Element-Byte-Order: LITTLE_ENDIAN",
        f"Content-MD5: {base64.b64encode(hashlib.md5(packed, usedforsecurity=False).digest()).decode()}",
        f"X-Binary-Number-of-Elements: {image.size}",
        f"X-Binary-Size-Fastest-Dimension: {image.shape[1]}",
        f"X-Binary-Size-Second-Dimension: {image.shape[0]}",
        "X-Binary-Size-Padding: 4095",
        "",
        "",
    ]
    tail = b"\0" * 4095 + b"\r\n--CIF-BINARY-FORMAT-SECTION----\r\n;\r\n"
    return "\r\n".join(head).encode() + b"\x0c\x1a\x04\xd5" + packed + tail


def test_an_image_as_a_pilatus_writes_it(tmp_path: pathlib.Path) -> None:
    image = np.array([[0, 5, -1], [-2, 100, 7]], np.int32)
    path = saved(tmp_path, dectris(image), "scan_1_00001.cbf")
    found = read(path, 0, 1)[0]
    assert (found.dtype, found.tolist()) == (np.int32, image.tolist())
    np.testing.assert_array_equal(found, fabio.open(str(path)).data)


def test_frames_that_fabio_itself_has_written(tmp_path: pathlib.Path) -> None:
    file = fabio.edfimage.EdfImage(data=IMAGES[0], header={"title": "a"})
    file.append_frame(data=IMAGES[1], header={"title": "b"})
    file.write(str(tmp_path / "x.edf"))
    fabio.tifimage.TifImage(data=IMAGES[1]).write(str(tmp_path / "x.tif"))
    np.testing.assert_array_equal(read(tmp_path / "x.edf", 0, 2), IMAGES)
    np.testing.assert_array_equal(read(tmp_path / "x.tif", 0, 1)[0], IMAGES[1])


def an_edf(path: pathlib.Path, *lines: str, behind: bytes = b"") -> pathlib.Path:
    facts = ["ByteOrder = LowByteFirst", "DataType = UnsignedShort", "Dim_1 = 3", "Dim_2 = 2", *lines]
    header = "{\n" + "".join(f"{line} ;\n" for line in facts)
    path.write_bytes(header.ljust(510).encode() + b"}\n" + np.arange(6, dtype="<u2").tobytes() + behind)
    return path


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("byteorder = HighByteFirst", "says BYTEORDER twice, as LowByteFirst and HighByteFirst"),
        ("Dim_1 = 2", "says Dim_1 twice, as 3 and 2"),
        ("EDF_DataBlockID = 1.Image.Error", "holds 'Error' beside its images"),
        ("RasterConfiguration = 5", "RASTERCONFIGURATION 5, which changes what its numbers mean"),
        ("DataValueOffset = 100", "DATAVALUEOFFSET 100, which changes"),
    ],
)
def test_an_edf_whose_numbers_are_not_plainly_those_of_an_image_is_refused(
    tmp_path: pathlib.Path, line: str, sentence: str
) -> None:
    assert FABIO.probe(an_edf(tmp_path / "good.edf", "EDF_DataBlockID = 1.Image.Psd", "Title = a", "title = b"), {}).frames == 1
    with pytest.raises(BadInput, match=sentence):
        FABIO.probe(an_edf(tmp_path / "bad.edf", line), {})


def test_a_frame_behind_a_gap_of_an_edf_does_not_vanish(tmp_path: pathlib.Path) -> None:
    whole = an_edf(tmp_path / "one.edf").read_bytes()
    assert FABIO.probe(an_edf(tmp_path / "room.edf", behind=bytes(600)), {}).frames == 1
    with pytest.raises(BadInput, match="a gap behind frame 0, and something behind the gap"):
        FABIO.probe(an_edf(tmp_path / "gap.edf", behind=bytes(600) + whole), {})


def test_a_text_in_braces_is_no_edf(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.edf").write_text('{\n"a": 1\n}\n')
    with pytest.raises(BadInput, match="is no image that format fabio reads"):
        FABIO.probe(tmp_path / "x.edf", {})
