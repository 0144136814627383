"""Golden bytes: what this version says, byte for byte, and what every version of this major ever said can still be read.

`golden_<major>_<minor>.json` holds one sample of every kind. A new kind is added by running this file,
which never changes a sample that is there; a changed struct needs a new minor and so a new file.
"""

import json
import pathlib
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from beamtide import codec
from beamtide.messages import KINDS, Message, kind_of

HERE = pathlib.Path(__file__).parent
TODAY = HERE / f"golden_{codec.MAJOR}_{codec.MINOR}.json"
ARRAYS = {"a/b": np.arange(6, dtype="<f4").reshape(2, 3), "flag": np.array([True, False]), "one": np.array(7, dtype="<u2")}


def sample(kind: inspect.Type, name: str = "") -> Any:
    """One value of a type, the same every time."""
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: sample(field.type, field.name) for field in fields})
        case inspect.VarTupleType(item_type=item):
            return (sample(item, name), sample(item, name))
        case inspect.TupleType(item_types=items):
            return tuple(sample(item, name) for item in items)
        case inspect.DictType(key_type=key, value_type=value):
            return {sample(key, name): sample(value, name)}
        case inspect.LiteralType(values=values):
            return sorted(values)[-1]
        case inspect.UnionType(types=types):
            return sample(types[0] if not isinstance(types[0], inspect.NoneType) else types[1], name)
    return scalar(kind, name)


def scalar(kind: inspect.Type, name: str) -> Any:
    match kind:
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 300 + len(name)
        case inspect.FloatType():
            return 1.5
        case inspect.BytesType():
            return b"\x00\xff"
        case inspect.StrType():
            return f"{name} \u00b5"
    raise NotImplementedError(f"no sample for {kind}")


def parts_of(kind: str) -> list[bytes]:
    message: Message = sample(inspect.type_info(KINDS[kind]))
    arrays = ARRAYS if kind == "StoreRequest" else None
    return [bytes(part) for part in codec.encode(message, id=2**40 + 1, reply_to=2, arrays=arrays)]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_todays_encoder_says_exactly_these_bytes(kind: str) -> None:
    golden = json.loads(TODAY.read_text())
    assert kind in golden, f"run python tests/contract/{pathlib.Path(__file__).name} to add {kind}"
    assert [part.hex() for part in parts_of(kind)] == golden[kind]


@pytest.mark.parametrize("file", sorted(HERE.glob(f"golden_{codec.MAJOR}_*.json")), ids=lambda file: file.stem)
def test_todays_decoder_reads_every_version_of_this_major(file: pathlib.Path) -> None:
    for kind, parts in json.loads(file.read_text()).items():
        letter = codec.decode([bytes.fromhex(part) for part in parts])
        assert kind_of(letter.message) == kind
        assert (letter.id, letter.reply_to) == (2**40 + 1, 2)
        if file == TODAY:
            assert letter.message == sample(inspect.type_info(KINDS[kind]))
    assert letter.arrays == {} or kind == "StoreRequest"


def test_arrays_come_back_with_shape_and_type() -> None:
    letter = codec.decode([bytes.fromhex(part) for part in json.loads(TODAY.read_text())["StoreRequest"]])
    assert letter.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (letter.arrays[name].shape, letter.arrays[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(letter.arrays[name], array)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_field_of_the_future_is_ignored(kind: str) -> None:
    parts = parts_of(kind)
    start = codec.ENVELOPE.size + len(kind)
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(parts[0][start:]), {"from": "the future"}])
    assert codec.decode([parts[0][:start] + longer, *parts[1:]]).message == codec.decode(parts).message


def test_no_kind_ever_disappears() -> None:
    for file in HERE.glob(f"golden_{codec.MAJOR}_*.json"):
        assert json.loads(file.read_text()).keys() <= KINDS.keys()


if __name__ == "__main__":
    known = json.loads(TODAY.read_text()) if TODAY.exists() else {}
    fresh = {kind: [part.hex() for part in parts_of(kind)] for kind in KINDS if kind not in known}
    TODAY.write_text(json.dumps(known | fresh, indent=1, sort_keys=True) + "\n")
    print(f"{TODAY.name}: {len(known)} kinds kept, {len(fresh)} added")
