"""Whatever arrives, the codec says WireError (or UnknownKind) or returns a message: nothing else ever comes out of it."""

import contextlib
import json
import pathlib
import random
import struct
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from beamtide import codec
from beamtide.errors import UnknownKind, WireError
from beamtide.messages import Ok, kind_of

GOLDEN = json.loads((pathlib.Path(__file__).parent / f"golden_{codec.MAJOR}_{codec.MINOR}.json").read_text())
SAMPLES = [[bytes.fromhex(part) for part in parts] for parts in GOLDEN.values()]
HEAD = codec.envelope(b"Ok")
OK = bytes(codec.encode(Ok())[0])
EMPTY = xxhash.xxh3_64_intdigest(b"")
pack = msgspec.msgpack.encode


def with_array(shape: object, dtype: object, part: bytes = b"", name: object = "a", check: int | None = None) -> list[bytes]:
    digest = xxhash.xxh3_64_intdigest(part) if check is None else check
    return [OK, pack([[name, shape, dtype, digest]]), part]


CORPUS: dict[str, Sequence[bytes]] = {
    "nothing": [],
    "empty part": [b""],
    "too many parts": [OK, *[b""] * codec.MAX_PARTS],
    "empty parts": [b"", b""],
    "short envelope": [OK[:10]],
    "envelope alone": [HEAD[: codec.ENVELOPE.size]],
    "envelope without kind": [codec.envelope(b"") + pack([])],
    "long kind": [codec.envelope(b"x" * 100) + pack([])],
    "kind that is cut": [HEAD[:-1]],
    "kind that is not ASCII": [codec.envelope(b"\xff\xfe\x00") + pack([])],
    "envelope and struct apart": [HEAD, pack([])],
    "wrong magic": [b"EVIL" + OK[4:]],
    "older major": [codec.envelope(b"Ok", version=(codec.MAJOR - 1, 4)) + pack([])],
    "newer major": [codec.envelope(b"Ok", version=(codec.MAJOR + 1, 0)) + pack([])],
    "no msgpack": [HEAD + b"\xc1"],
    "empty body": [HEAD],
    "map for an array": [HEAD + pack({"note": "x"})],
    "number for text": [HEAD + pack([3])],
    "bad UTF-8": [HEAD + b"\x91\xa2\xff\xfe"],
    "array of 4 billion": [HEAD + b"\xdd\xff\xff\xff\xff"],
    "text of 4 GiB": [HEAD + b"\x91\xdb\xff\xff\xff\xff"],
    "deep": [HEAD + b"\x91" * 200_000],
    "deep in the unknown tail": [HEAD + b"\x92\xa0" + b"\x91" * 200_000],
    "trailing bytes": [OK + b"\x00"],
    "headers are no array": [OK, b"\x07"],
    "4 billion headers": [OK, b"\xdd\xff\xff\xff\xff"],
    "headers of 2 MiB": [OK, pack([["a" * (2 << 20), [0], "<f8", EMPTY]]), b""],
    "header without part": with_array([0], "<f8")[:2],
    "part without header": [OK, pack([]), b"x"],
    "too few bytes": with_array([3], "<f8", b"\0" * 16),
    "too many bytes": with_array([1], "<f8", b"\0" * 16),
    "negative length": with_array([-1], "<f8"),
    "two negative lengths": with_array([-1, -1], "|u1", b"x"),
    "product beyond 64 bits": with_array([2**32, 2**32, 2**32], "|u1"),
    "product that wraps to 0": with_array([2**63, 2], "|u1"),
    "product that wraps to 8": with_array([2**61 + 1], "<f8", b"\0" * 8),
    "nothing times too much": with_array([0, 2**63], "<f8"),
    "nothing times much": with_array([0, 2**62, 2**62], "<f8"),
    "too many dimensions": with_array([1] * 9, "|u1", b"x"),
    "objects": with_array([1], "|O", b"\0" * 8),
    "objects by name": with_array([1], "O", b"\0" * 8),
    "text": with_array([1], "<U2", b"\0" * 8),
    "void": with_array([1], "|V8", b"\0" * 8),
    "structure": with_array([1], "f8,f8", b"\0" * 16),
    "subarray": with_array([1], "(1000000000,1000000000)f8", b"\0" * 16),
    "dates": with_array([1], "<M8[ns]", b"\0" * 8),
    "dtype by alias": with_array([1], "float64", b"\0" * 8),
    "no such dtype": with_array([1], "<f3", b"\0" * 3),
    "dtype of brackets": with_array([1], "(" * 5000, b"\0" * 8),
    "empty dtype": with_array([1], "", b"\0" * 8),
    "wide truth": with_array([1], "<b8", b"\0" * 8),
    "name is a number": with_array([0], "<f8", name=3),
    "wrong checksum": with_array([1], "|u1", b"x", check=1),
    "negative checksum": with_array([1], "|u1", b"x", check=-1),
    "one name twice": [OK, pack([["a", [0], "<f8", EMPTY]] * 2), b"", b""],
}


@pytest.mark.parametrize("name", CORPUS)
def test_a_broken_message_is_a_wire_error(name: str) -> None:
    with pytest.raises(WireError):
        codec.decode(CORPUS[name])


def test_an_unknown_kind_says_which_message_it_was() -> None:
    head = codec.envelope(b"Teleport", 2**64 - 1, version=(codec.MAJOR, 99))
    with pytest.raises(UnknownKind) as caught:
        codec.decode([head + b"anything"])
    assert (caught.value.kind, caught.value.message_id) == ("Teleport", 2**64 - 1)


def mutated(chance: random.Random) -> list[bytes]:
    """A good message with a few bytes, parts or lengths changed."""
    parts = [bytearray(part) for part in chance.choice(SAMPLES)]
    for _ in range(chance.randint(1, 4)):
        part = chance.choice(parts)
        at = chance.randrange(len(part) + 1)
        match chance.randrange(7):
            case 0 if at < len(part):
                part[at] ^= 1 << chance.randrange(8)
            case 1:
                del part[at:]
            case 2:
                part[at:at] = chance.randbytes(chance.randint(1, 9))
            case 3:
                parts.insert(chance.randrange(len(parts) + 1), bytearray(chance.choice(chance.choice(SAMPLES))))
            case 4 if len(parts) > 1:
                parts.pop(chance.randrange(len(parts)))
            case 5:
                part[at : at + 9] = chance.choice(b"\xcf\xd3\xcb\xdb\xdd\xdf\xc6\xc9\xc0").to_bytes() + struct.pack(
                    ">Q", chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 0x7FF8 << 48])
                )
            case 6:
                chance.shuffle(parts)
    return [bytes(part) for part in parts]


@pytest.mark.parametrize("seed", range(8))
def test_thousands_of_mutations_never_surprise(seed: int) -> None:
    chance = random.Random(seed)
    read = 0
    for _ in range(1500):
        with contextlib.suppress(WireError):
            letter = codec.decode(mutated(chance))
            codec.pack(letter.message, letter.arrays)
            read += 1
    assert 0 < read < 1500, "the mutations are too mild or too wild to show anything"


@settings(max_examples=300)
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=20,
    ),
    kind=st.sampled_from(sorted(GOLDEN)),
    shape=st.lists(st.sampled_from([-1, 0, 1, 2, 2**31, 2**62, 2**64 - 1]), max_size=10),
    dtype=st.sampled_from(["<f8", "|u1", ">i4", "<c16", "<f16", "|b1", "<c32", "|f8", "<u32"]),
)
def test_any_body_of_any_kind_is_read_or_refused(body: object, kind: str, shape: list[int], dtype: str) -> None:
    whole = codec.envelope(kind.encode()) + pack(body)
    for parts in ([whole], with_array(shape, dtype), [whole, pack(body), b""]):
        read = None
        with contextlib.suppress(WireError):
            read = codec.decode(parts).message
        assert read is None or kind_of(read) in (kind, "Ok"), "read as something else"


def test_what_is_refused_on_the_way_in_is_refused_on_the_way_out() -> None:
    with pytest.raises(WireError, match="cannot be sent"):
        codec.encode(Ok(), arrays={"a": np.array([object()])})
