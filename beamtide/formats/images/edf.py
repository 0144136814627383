"""Headers of EDF images (ESRF data format): a text in braces before the numbers of each frame.

Source: P. Boesecke, ESRF data format 2.40.
"""

import re
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from beamtide.errors import BadInput
from beamtide.formats.images.header import Frame, ImageFile, ends, sensible, words

START = re.compile(rb"\s*\{\s*[A-Za-z]")
LAYS = re.compile(r"DIM_\d+|DATATYPE|BYTEORDER|SIZE|EDF_BINARYSIZE|COMPRESSION")
"""Keys that say how the numbers lie in the file."""
BLANK = b" \t\r\n\0"
LONGEST = 512 * 512
"""Bytes of a header, as for fabio."""
END = re.compile(rb"}\r?\n")
TYPES: Mapping[str, str] = {
    **dict.fromkeys(("SignedByte", "Signed8"), "i1"),
    **dict.fromkeys(("UnsignedByte", "Unsigned8"), "u1"),
    **dict.fromkeys(("SignedShort", "Signed16"), "i2"),
    **dict.fromkeys(("UnsignedShort", "Unsigned16", "UnsignedShortInteger"), "u2"),
    **dict.fromkeys(("SignedInteger", "Signed32", "SignedLong"), "i4"),
    **dict.fromkeys(("UnsignedInteger", "Unsigned32", "UnsignedLong"), "u4"),
    **dict.fromkeys(("Signed64",), "i8"),
    **dict.fromkeys(("Unsigned64",), "u8"),
    **dict.fromkeys(("FloatValue", "FLOATVALUE", "FLOAT", "Float", "FloatIEEE32", "Float32"), "f4"),
    **dict.fromkeys(("Double", "DoubleValue", "FloatIEEE64", "DoubleIEEE64"), "f8"),
}


def read(file: BinaryIO, size: int) -> ImageFile:
    """Return what an EDF of so many bytes holds."""
    general: dict[str, str] | None = None
    first: Frame | None = None
    frames, at = 0, 0
    while at < size:
        header, start = _header(file, at, frames)
        if not header:
            break
        if "EDF_DataFormatVersion" in header and not frames and general is None:
            own = ("SIZE", "IMAGE", "HEADERID")
            general = {key: value for key, value in header.items() if not key.startswith("EDF_") and key.upper() not in own}
            if (beside := int(header.get("EDF_BinarySize", 0))) < 0:
                raise BadInput(f"is an EDF whose general header says {beside} bytes")
            at = start + beside
            continue
        found, length = _frame({**(general or {}), **header})
        if first is not None and found != first:
            raise BadInput(f"is an EDF whose frame {frames} is {words(found)}, and those before it {words(first)}")
        if start + length > size:
            break
        first, frames, at = found, frames + 1, start + length
    if first is None:
        raise ends(size, "its first frame is not whole")
    return ImageFile("EDF", *first, frames)


def _header(file: BinaryIO, at: int, frames: int) -> tuple[dict[str, str], int]:
    """Return the header at a place and where its data begin; nothing where the file ends, or the header does."""
    file.seek(at)
    block = file.read(512)
    while (end := END.search(block)) is None and len(block) < LONGEST:
        more = file.read(4096)
        if not more:
            break
        block += more
    if not block[:512].strip(BLANK):
        if _holds_more(file, at):
            raise BadInput(f"is an EDF with a gap behind frame {frames - 1}, and something behind the gap")
        return {}, at
    if not re.match(rb"\s*\{", block):
        raise BadInput(f"is an EDF with something behind frame {frames - 1} that is no header: {block[:8]!r}")
    if end is None:
        if len(block) >= LONGEST:
            raise BadInput(f"is an EDF with a header of more than {LONGEST} bytes")
        return {}, at
    pairs = (part.split(b"=", 1) for part in block[block.index(b"{") + 1 : end.start()].split(b";") if b"=" in part)
    found: dict[str, str] = {}
    for part in pairs:
        key, value = (text.strip(BLANK).decode("ascii", "replace") for text in part)
        if LAYS.fullmatch(key.upper()) and found.get(key, value) != value:
            raise BadInput(f"is an EDF whose header says {key} twice, as {found[key]} and {value}")
        found[key] = value
    return found, at + end.end()


def _holds_more(file: BinaryIO, at: int) -> bool:
    """Whether anything but blanks and zeros follows."""
    file.seek(at)
    return any(part.strip(BLANK) for part in iter(lambda: file.read(1 << 20), b""))


def _check_meaning(header: Mapping[str, str], said: Mapping[str, str]) -> None:
    """Raise BadInput for a header that contradicts itself, or whose numbers are not the counts of an image as they stand."""
    if again := next((key for key, value in header.items() if LAYS.fullmatch(key.upper()) and said[key.upper()] != value), ""):
        raise BadInput(f"is an EDF whose header says {again.upper()} twice, as {header[again]} and {said[again.upper()]}")
    block = said.get("EDF_DATABLOCKID", "").split(".")
    if len(block) > 2 and block[2].upper() not in ("", "PSD"):
        raise BadInput(f"is an EDF that holds {block[2]!r} beside its images (EDF_DataBlockID); save the images alone")
    for key, plain in (("RASTERCONFIGURATION", 1.0), ("DATAVALUEOFFSET", 0.0)):
        if key in said and float(said[key]) != plain:
            raise BadInput(f"is an EDF with {key} {said[key]}, which changes what its numbers mean and is not read")


def _frame(header: Mapping[str, str]) -> tuple[Frame, int]:
    """Return shape and type of a frame, and the bytes that it takes in the file."""
    said = {key.upper(): value for key, value in header.items()}
    _check_meaning(header, said)
    if "EDF_BINARYFILENAME" in said:
        raise BadInput(f"is an EDF whose numbers lie in another file ({said['EDF_BINARYFILENAME']}); save both as one")
    if not said.get("COMPRESSION", "NO").upper().startswith("NO"):
        raise BadInput(f"is an EDF compressed with {said['COMPRESSION']}; save it without compression")
    sides = {key: int(float(value)) for key, value in said.items() if re.fullmatch(r"DIM_\d+", key)}
    if sides.keys() != {"DIM_1", "DIM_2"}:
        raise BadInput(f"is an EDF with {', '.join(sorted(sides)) or 'no dimensions'}; an image has Dim_1 and Dim_2")
    if said.get("DATATYPE", "") not in TYPES:
        raise BadInput(f"is an EDF of DataType {said.get('DATATYPE', '(none)')!r}, which is not read")
    dtype = np.dtype(TYPES[said["DATATYPE"]])
    order = said.get("BYTEORDER", "")
    if "Low" not in order and "High" not in order:
        raise BadInput("is an EDF whose header has no ByteOrder, so that its numbers cannot be told")
    shape = sides["DIM_2"], sides["DIM_1"]
    sensible(shape)
    needed = shape[0] * shape[1] * dtype.itemsize
    lengths = [int(float(said[key])) for key in ("SIZE", "EDF_BINARYSIZE") if key in said] or [needed]
    if lengths[0] != lengths[-1] or lengths[0] < needed:
        raise BadInput(f"is an EDF whose header says {lengths[0]} bytes for {words((shape, dtype))}, which need {needed}")
    return (shape, dtype), lengths[0]
