"""Headers of CBF images: the binary section of a file of Dectris' miniCBF, or of imgCIF.

Source: CBF/imgCIF 1.5; Dectris, Pilatus CBF header specification 1.4.
"""

import re
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from beamtide.errors import BadInput
from beamtide.formats.images.header import Frame, ImageFile, ends, sensible

START = b"###CBF: VERSION"
LONGEST = 15 * 512
"""Bytes before the binary section; beyond them, fabio takes the image for text."""
SECTION = 8192
"""The most bytes of the header of the binary section."""
REST = 8192
"""Bytes behind an image that are padding; more is another image."""
MARK = b"\x0c\x1a\x04\xd5"
TYPES = {
    f"{sign} {bits}-bit integer": f"{kind}{bits // 8}"
    for sign, kind in (("signed", "i"), ("unsigned", "u"))
    for bits in (8, 16, 32)
}
LINE = re.compile(rb'([\w-]+)\s*[:=]\s*"?([^"\r\n;]*)"?')


def read(file: BinaryIO, size: int) -> ImageFile:
    """Return what a CBF of so many bytes holds."""
    file.seek(0)
    begins = file.read(LONGEST + SECTION)
    section = begins.find(b"--CIF-BINARY-FORMAT-SECTION--")
    mark = begins.find(MARK, section) if section >= 0 else -1
    if mark < 0 and len(begins) == size:
        raise ends(size, "its header has no end")
    if mark < 0 or section > LONGEST:
        raise BadInput(f"is a CBF without an image behind a header of at most {LONGEST} bytes, as fabio reads it")
    said = {key.decode("ascii"): value.decode("ascii").strip() for key, value in LINE.findall(begins[section:mark])}
    start, length = mark + len(MARK), int(said["X-Binary-Size"])
    shape, dtype = _frame(said, length)
    if start + length > size:
        raise ends(size, f"its header says {start + length}")
    if size - start - length > REST:
        raise BadInput(f"is a CBF with {size - start - length} bytes behind its first image; write one image a file")
    return ImageFile("CBF", shape, dtype, 1, (start, length), said.get("Content-MD5", ""))


def _frame(said: Mapping[str, str], length: int) -> Frame:
    """Return shape and type of an image in so many bytes; BadInput for one that fabio does not read as it was written."""
    if said.get("conversions") != "x-CBF_BYTE_OFFSET":
        raise BadInput(f"is a CBF compressed with {said.get('conversions', 'nothing')}; only x-CBF_BYTE_OFFSET is read")
    if said.get("X-Binary-Element-Byte-Order", "LITTLE_ENDIAN") != "LITTLE_ENDIAN":
        raise BadInput("is a CBF in big-endian order, which fabio does not read")
    element = said["X-Binary-Element-Type"]
    if element not in TYPES:
        raise BadInput(f"is a CBF of {element!r}; read are {', '.join(TYPES)}")
    rows, columns, images = (int(said.get(f"X-Binary-Size-{name}-Dimension", 1)) for name in ("Second", "Fastest", "Third"))
    sensible((rows, columns))
    if images > 1:
        raise BadInput("is a CBF of more than one image; write one image a file")
    if int(said.get("X-Binary-Number-of-Elements", rows * columns)) != rows * columns or rows * columns > length:
        raise BadInput(f"is a CBF whose header says {rows} x {columns} pixels in {length} bytes, which cannot be")
    return (rows, columns), np.dtype(TYPES[element])
