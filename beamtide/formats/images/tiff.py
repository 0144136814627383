"""Headers of TIFF images, of one page or many; MarCCD images are TIFF, too.

Source: TIFF revision 6.0.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from beamtide.errors import BadInput
from beamtide.formats.images.header import Frame, ImageFile, ends, sensible, words

STARTS = (b"II*\0", b"MM\0*")
KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
SIZES = {1: "B", 3: "H", 4: "I"}
TEXT = 2
TEXTS = {270, 272, 305, 306, 320}
"""Tags that fabio reads whole beside the image: description, model, software, date, palette."""
WIDTHS = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of a value, where they are more than one."""
COMPRESSIONS = {
    2: "CCITT",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
WIDTH, HEIGHT, BITS, COMPRESSION, COLOURS, DESCRIPTION = 256, 257, 258, 259, 262, 270
OFFSETS, SAMPLES, ROWS, COUNTS, TILES, FORMAT = 273, 277, 278, 279, 322, 339
Tags = Mapping[int, tuple[int, int, bytes]]
"""Tag -> type, count, and the four bytes that hold the value or say where it is."""


@dataclass(frozen=True, slots=True)
class _TiffBytes:
    """A file of so many bytes, and the order of bytes in its numbers."""

    file: BinaryIO
    size: int
    order: str

    def part(self, at: int, length: int) -> bytes:
        """Return some bytes; Unfinished where the file ends before."""
        if at + length > self.size:
            raise ends(self.size, f"its header leads to {at + length}")
        self.file.seek(at)
        return self.file.read(length)

    def numbers(self, layout: str, content: bytes, at: int = 0) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + layout, content, at)

    def values(self, tags: Tags, tag: int, default: int | None = None) -> tuple[int, ...]:
        """Return the numbers of a tag; BadInput for one that must be there."""
        if tag not in tags:
            if default is None:
                raise BadInput(f"is a TIFF without tag {tag}, which says how its image lies in the file")
            return (default,)
        kind, many, inside = tags[tag]
        if kind not in SIZES:
            raise BadInput(f"is a TIFF whose tag {tag} is of type {kind}, which is not read")
        layout = f"{many}{SIZES[kind]}"
        length = struct.calcsize("<" + layout)
        if many > 1 and length <= len(inside) and tag in (OFFSETS, COUNTS):
            raise BadInput("is a TIFF in two short strips, which fabio does not read; save it in one")
        return self.numbers(layout, inside if length <= len(inside) else self.part(self.numbers("I", inside)[0], length))


def read(file: BinaryIO, size: int) -> ImageFile:
    """Return what a TIFF of so many bytes holds."""
    file.seek(0)
    source = _TiffBytes(file, size, "<" if file.read(2) == b"II" else ">")
    first: Frame | None = None
    frames, described = 0, 1
    for tags in _pages(source):
        found = _frame(source, tags)
        described = described if first else _described(source, tags)
        if first is not None and found != first:
            raise BadInput(f"is a TIFF whose page {frames} is {words(found)}, and those before it {words(first)}")
        first, frames = found, frames + 1
        if frames * found[0][0] * found[0][1] * found[1].itemsize > size:
            raise BadInput(f"is a TIFF whose first {frames} pages hold more than the file, which cannot be")
    if first is None:
        raise ends(size, "its first page is not there")
    if described > 1 == frames:
        raise BadInput(f"is a stack of {described} images of ImageJ with one page for all of them; save it as single images")
    return ImageFile("TIFF", *first, frames)


def _pages(source: _TiffBytes) -> Iterator[Tags]:
    """Yield the tags of each page, in the order of the chain."""
    (at,), seen = source.numbers("I", source.part(4, 4)), set[int]()
    while at:
        if at in seen:
            raise BadInput("is a TIFF whose pages form a circle")
        seen.add(at)
        (count,) = source.numbers("H", source.part(at, 2))
        entries = source.part(at + 2, 12 * count + 4)
        found = (source.numbers("HHI4s", entries, 12 * number) for number in range(count))
        tags = {tag: (kind, many, value) for tag, kind, many, value in found}
        _check_texts(source, tags)
        yield tags
        (at,) = source.numbers("I", entries, 12 * count)


def _check_texts(source: _TiffBytes, tags: Tags) -> None:
    """Raise Unfinished if what fabio reads beside the image is longer than the file: it would take the memory that is said."""
    for tag in TEXTS & tags.keys():
        kind, many, inside = tags[tag]
        length = many * WIDTHS.get(kind, 1)
        if length > len(inside):
            (at,) = source.numbers("I", inside)
            if at + length > source.size:
                raise ends(source.size, f"its tag {tag} leads to {at + length}")


def _frame(source: _TiffBytes, tags: Tags) -> Frame:
    """Return shape and type of a page; BadInput for one that is not an image of plain numbers."""
    bits, (samples, *_), (colours, *_) = (source.values(tags, tag, 1) for tag in (BITS, SAMPLES, COLOURS))
    if len(bits) > 1 or samples != 1 or colours not in (0, 1):
        raise BadInput("is a TIFF in colours, which no detector measures; take the image as the detector wrote it")
    (packed, *_), (sample, *_) = source.values(tags, COMPRESSION, 1), source.values(tags, FORMAT, 1)
    if packed != 1:
        raise BadInput(f"is a TIFF compressed with {COMPRESSIONS.get(packed, f'method {packed}')}; save it without compression")
    kind = KINDS.get(sample, "")
    if TILES in tags or not kind or bits[0] not in ((32, 64) if kind == "f" else (8, 16, 32, 64)):
        raise BadInput(f"is a TIFF in tiles, or with {bits[0]} bits a pixel of sample format {sample}, which is not read")
    shape = source.values(tags, HEIGHT)[0], source.values(tags, WIDTH)[0]
    sensible(shape)
    found = shape, np.dtype(f"{kind}{bits[0] // 8}")
    _check_strips(source, tags, found)
    return found


def _check_strips(source: _TiffBytes, tags: Tags, frame: Frame) -> None:
    """Raise Unfinished if strips lie beyond the end of the file, BadInput if they are not those of the image."""
    (rows, columns), dtype = frame
    row, per = columns * dtype.itemsize, max(1, min(rows, source.values(tags, ROWS, rows)[0]))
    offsets, counts = source.values(tags, OFFSETS), source.values(tags, COUNTS, rows * row)
    whole = len(counts) == len(offsets) == -(-rows // per)
    if not whole or list(counts) != [row * min(per, rows - begin) for begin in range(0, rows, per)]:
        raise BadInput(f"is a TIFF whose {len(offsets)} strips of {sum(counts)} bytes are not {words(frame)}")
    end = max(begin + length for begin, length in zip(offsets, counts, strict=True))
    if end > source.size:
        raise ends(source.size, f"its header says {end}")


def _described(source: _TiffBytes, tags: Tags) -> int:
    """Return how many images the description of ImageJ says that there are; 1 if it says nothing."""
    kind, many, inside = tags.get(DESCRIPTION, (0, 0, b""))
    if kind != TEXT or many <= len(inside):
        return 1
    text = source.part(source.numbers("I", inside)[0], min(many, 4096))
    held = re.search(rb"images=(\d+)", text) if text.startswith(b"ImageJ=") else None
    return int(held[1]) if held else 1
