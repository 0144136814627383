"""The codec gives back what it was given, and refuses what it does not understand."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beamtide import codec
from beamtide.errors import UnknownKind, WireError
from beamtide.messages import KINDS, Ok, kind_of
from beamtide.messages.base import TaskId
from beamtide.messages.tasks import Beat


@given(
    array=hnp.arrays(
        dtype=hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 16),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
    ),
    number=st.integers(0, 2**64 - 1),
)
def test_what_goes_in_comes_out(array: np.ndarray, number: int) -> None:
    beat = Beat(worker="w", task=TaskId("t"), attempt=3, progress=0.5)
    letter = codec.unpack(b"".join(codec.pack(beat, {"a": array})))
    sent = codec.decode([bytes(part) for part in codec.encode(beat, number, 7, {"a": array})])
    assert letter.message == beat
    assert (sent.id, sent.reply_to) == (number, 7)
    np.testing.assert_array_equal(sent.arrays["a"], array)
    assert sent.arrays["a"].dtype == array.dtype


def test_an_unknown_kind_is_named_with_the_id_of_its_message() -> None:
    with pytest.raises(UnknownKind, match="FromTheFuture") as caught:
        codec.decode([codec.envelope(b"FromTheFuture", 9) + b"\x90"])
    assert caught.value.message_id == 9


def test_a_field_that_a_newer_minor_added_is_ignored() -> None:
    longer = codec.envelope(b"Ok") + msgspec.msgpack.encode(["fine", "a field of the future"])
    assert codec.decode([longer]).message == Ok(note="fine")


def test_one_flipped_bit_in_an_array_is_noticed() -> None:
    parts = [bytes(part) for part in codec.encode(Ok(), arrays={"a": np.arange(10.0)})]
    damaged = bytearray(parts[2])
    damaged[11] ^= 4
    with pytest.raises(WireError, match="checksum"):
        codec.decode([*parts[:2], bytes(damaged)])


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len(KINDS) > 40
    assert all(name == kind_of(kind) for name, kind in KINDS.items())
