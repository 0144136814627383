"""Encodes messages and arrays as message parts, and decodes them: the only encoder.

    part 0   magic "BTDE" | major u8 | minor u8 | message id u64 | reply-to id u64 (big endian) | length of kind u8 | kind (ASCII)
             | the struct, as a msgpack array
    part 1   the array headers (name, shape, dtype, xxh3-64), as a msgpack array; absent without arrays
    part 2…  one part per array: its bytes in C order

Envelope and struct share a part because CURVE encrypts each part by itself: a second part makes a round trip 20 % slower.
Versions with the same major number understand each other: unknown trailing fields are ignored, missing ones get their default.
Everything is limited before it is decoded: number of parts, size of the header, shape times item size against the length
of the part (in Python integers), and dtypes from an allow-list without objects. A checksum that does not fit is an error.
Source: ADR 0001, ADR 0032.
"""

import re
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from beamtide.errors import UnknownKind, WireError
from beamtide.machine import Arrays, Parts
from beamtide.messages import KINDS, Message

MAJOR, MINOR = 2, 2
MAGIC = b"BTDE"
ENVELOPE = struct.Struct(">4sBBQQB")
MAX_KIND = 64
MAX_PARTS = 514
MAX_HEADER = 80 << 20
"""A header may carry a calibration file of 64 MiB; the pump refuses larger messages before they are allocated."""
MAX_DIMENSIONS = 8
DTYPE_KINDS = frozenset("biufc")
DTYPE_NAME = re.compile(r"[<>|][biufc](1|2|4|8|16|32)")
MAX_ARRAY_HEADERS = 1 << 20

_encode = msgspec.msgpack.Encoder().encode
_pack_envelope, _unpack_envelope, _SIZE = ENVELOPE.pack, ENVELOPE.unpack_from, ENVELOPE.size
_kinds = {kind: name.encode() for name, kind in KINDS.items()}
_decoders = {name.encode(): msgspec.msgpack.Decoder(kind).decode for name, kind in KINDS.items()}


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """The header of one array part."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    xxh3: int


_decode_headers = msgspec.msgpack.Decoder(tuple[ArrayHeader, ...]).decode


class Letter(msgspec.Struct, frozen=True):
    """A decoded message with its ids and arrays."""

    message: Message
    id: int = 0
    reply_to: int = 0
    arrays: dict[str, NDArray[Any]] = msgspec.field(default_factory=dict)


def envelope(kind: bytes, id: int = 0, reply_to: int = 0, version: tuple[int, int] = (MAJOR, MINOR)) -> bytes:  # noqa: A002
    """Return the bytes that precede the struct of a message."""
    return _pack_envelope(MAGIC, version[0], version[1], id, reply_to, len(kind)) + kind


def encode(message: Message, id: int = 0, reply_to: int = 0, arrays: Arrays | None = None) -> list[Any]:  # noqa: A002
    """Return the parts of a message; array parts are views of the arrays' own memory where they are contiguous."""
    parts: list[Any] = [envelope(_kinds[type(message)], id, reply_to) + _encode(message)]
    if arrays:
        blocks = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        parts.append(_encode([_describe(name, block) for name, block in blocks.items()]))
        parts.extend(block.reshape(-1).view(np.uint8).data for block in blocks.values())
    return parts


def decode(parts: Sequence[bytes | memoryview]) -> Letter:
    """Return the message of these parts; WireError says what is wrong with them."""
    head = parts[0] if parts else b""
    if not _SIZE < len(head) <= MAX_HEADER:
        raise WireError(f"the first part has {len(head)} bytes, expected {_SIZE + 1} to {MAX_HEADER}")
    magic, major, _, message_id, reply_to, length = _unpack_envelope(head)
    body = _SIZE + length
    if magic != MAGIC or major != MAJOR or not 0 < length <= MAX_KIND or body > len(head):
        raise WireError(_fault_of_envelope(magic, major, length))
    kind = bytes(head[_SIZE:body])
    if (decoder := _decoders.get(kind)) is None:
        raise UnknownKind(kind.decode("ascii", "replace"), message_id)
    try:
        arrays = _arrays(parts) if len(parts) > 1 else {}
        return Letter(decoder(head[body:]), message_id, reply_to, arrays)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"{kind.decode()}: {error}") from error
    except WireError as error:
        raise WireError(f"{kind.decode()}: {error}") from None


def pack(message: Message, arrays: Arrays | None = None) -> Parts:
    """Return message and arrays as one block for a row of the spool, in pieces: the arrays are not copied."""
    parts = encode(message, arrays=arrays)
    lengths = struct.pack(f">H{len(parts)}Q", len(parts), *(len(part) for part in parts))
    return (lengths, *parts)


def unpack(block: bytes) -> Letter:
    """Return message and arrays of a block made by `pack`; the arrays are read-only views of `block`."""
    view = memoryview(block)
    try:
        (count,) = struct.unpack_from(">H", view)
        lengths = struct.unpack_from(f">{count}Q", view, 2)
    except struct.error as error:
        raise WireError("not a block of parts") from error
    parts, at = [], 2 + 8 * count
    for length in lengths:
        parts.append(view[at : at + length])
        at += length
    return decode(parts)


def _fault_of_envelope(magic: bytes, major: int, length: int) -> str:
    if magic != MAGIC:
        return "not a Beamtide message"
    if major != MAJOR:
        return f"protocol {major}, we speak {MAJOR}: update the older side"
    return f"a kind of {length} bytes, at most {MAX_KIND} allowed"


def _arrays(parts: Sequence[bytes | memoryview]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a message of two parts or more."""
    if len(parts) > MAX_PARTS:
        raise WireError(f"{len(parts)} parts, expected 1 to {MAX_PARTS}")
    if len(parts[1]) > MAX_ARRAY_HEADERS:
        raise WireError(f"array headers of {len(parts[1])} bytes, at most {MAX_ARRAY_HEADERS} allowed")
    headers = _decode_headers(parts[1])
    if len(headers) != len(parts) - 2:
        raise WireError(f"{len(headers)} array headers for {len(parts) - 2} array parts")
    arrays = {header.name: _array(header, part) for header, part in zip(headers, parts[2:], strict=True)}
    if len(arrays) != len(headers):
        raise WireError("two arrays have the same name")
    return arrays


def _describe(name: str, block: NDArray[Any]) -> ArrayHeader:
    if block.dtype.kind not in DTYPE_KINDS:
        raise WireError(f"array {name!r} has dtype {block.dtype}, which cannot be sent")
    return ArrayHeader(name, block.shape, block.dtype.str, xxhash.xxh3_64_intdigest(block.reshape(-1).view(np.uint8).data))


def _array(header: ArrayHeader, part: bytes | memoryview) -> NDArray[Any]:
    if not DTYPE_NAME.fullmatch(header.dtype):  # before NumPy parses it: its parser is not safe for hostile text
        raise WireError(f"array {header.name!r} has dtype {header.dtype[:40]!r}, which is not allowed")
    try:
        dtype = np.dtype(header.dtype)
    except TypeError as error:
        raise WireError(f"array {header.name!r} has no dtype that we know") from error
    if dtype.str != header.dtype:
        raise WireError(f"array {header.name!r} has dtype {header.dtype!r}, which is not allowed")
    if len(header.shape) > MAX_DIMENSIONS or any(length < 0 for length in header.shape):
        raise WireError(f"array {header.name!r} has shape {header.shape}")
    expected = dtype.itemsize
    for length in header.shape:
        expected *= length
    if expected != len(part):
        raise WireError(f"array {header.name!r}: {len(part)} bytes, its shape says {expected}")
    if xxhash.xxh3_64_intdigest(part) != header.xxh3:
        raise WireError(f"array {header.name!r}: the checksum does not fit, it was damaged on its way")
    try:
        return np.frombuffer(part, dtype=dtype).reshape(header.shape)
    except (ValueError, OverflowError) as error:  # an array without bytes whose length is beyond NumPy's integers
        raise WireError(f"array {header.name!r} has shape {header.shape}") from error
