"""Captures of a PandABox, as it sends them or as others have saved them: one file, columns by trigger.

Five ways in which the same capture is written are told apart by their first bytes:
- text, as `ASCII` on port 8889: a header that says what each field is, then one line of numbers per trigger;
- framed binary, as `XML FRAMED SCALED` or `XML FRAMED RAW` on port 8889 (decoded by the package pandablocks);
- HDF5, as the package pandablocks and the servers built on it write it: a dataset per column, in units already;
- JSON messages with `message_type`, one a line, with one value or a block of values per field;
- a CBOR sequence of any of these messages, as streams are recorded (package cbor2).

Columns are named "FIELD.Capture" ("INENC1.VAL.Mean"). The header is obeyed: "process: Scaled" is in units already; "Unscaled" is
averaged already, and gets scale and offset; "Raw" gets them too, and its mean is a sum over the time of the gate, so it needs
PCAP.GATE_DURATION (PCAP.SAMPLES in old versions). "missed: N" says that the first N triggers came before the stream did: row 0 is
trigger N. Units of the header are passed on. A capture with several armings goes on counting from one to the next, unless one
lost triggers (`panda_arming`); an END that counts other lines than there are is refused.
Options: `trigger`, the column that counts triggers (lost ones become NaN), and `first_trigger` (1). JSON blocks carry
`frame_number` and need no such column.
"""

import io
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats import panda_arming
from beamtide.formats.base import Extent, Missing, Unfinished
from beamtide.formats.hdf5 import HdfFormat
from beamtide.formats.panda_capture import Capture, capture
from beamtide.formats.recognise import BEGINNING, of_bytes
from beamtide.formats.trigger import Columns, first_of, indexes, spread

TEXT = re.compile(rb"(OK\r?\n)?\s*(arm_time|missed)")
"""How a text capture begins; a plain TCP client keeps the "OK" that the server answers first."""
ENVELOPE = {"message_id", "message_type", "version", "frame_number", "arm_time", "detector_specific"}


@dataclass(frozen=True, slots=True)
class PandaFormat:
    """A capture in one file."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many triggers a file holds so far."""
        if h5py.is_hdf5(path):
            return HDF5.probe(path, options)
        found = _load(path)
        index = _index(found, options, path)
        counted = "trigger" in options or found.index is not None
        held, begin = (int(index[-1]) + 1, int(index[0])) if index.size else (0, 0)
        lost = (Missing(int(index[-found.corrupt]), held, found.cut),) if found.corrupt else ()
        return Extent(held, lost, count=0 if counted else None, begin=begin, cut=found.cut)

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> Columns:
        """Return the columns of triggers `first <= index < last`."""
        if h5py.is_hdf5(path):
            return HDF5.read(path, first, last, options)
        found = _load(path)
        index = _index(found, options, path)
        held = int(index[-1]) + 1 if index.size else 0
        if not 0 <= first <= last <= held:
            raise BadInput(f"{path}: triggers {first} to {last} were asked for, but it holds {held}; was it written again?")
        low, high = np.searchsorted(index, [first, last])
        return spread({name: rows[low:high] for name, rows in found.columns.items()}, index[low:high], first, last)

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the units of columns, as the header states them."""
        return HDF5.units(path, options) if h5py.is_hdf5(path) else _load(path).units

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return None: a capture does not know its scan."""
        return None


def begins_as_one(path: pathlib.Path) -> bool:
    """Whether a file begins like a capture as a PandABox sends it, text or framed."""
    try:
        with path.open("rb") as file:
            begin = file.read(256)
    except OSError:
        return False
    return bool(TEXT.match(begin) or panda_arming.XML.match(begin))


def _index(found: Capture, options: Mapping[str, str], path: pathlib.Path) -> NDArray[np.int64]:
    name = options.get("trigger")
    if name is not None:
        if name not in found.columns:
            raise BadInput(f"{path}: options.trigger: there is no column {name!r}, only {', '.join(sorted(found.columns))}")
        return indexes(found.columns[name], first_of(options, path), str(path))
    if found.unsure:
        raise BadInput(f"{path}: {found.unsure}")
    if found.index is not None:
        return indexes(found.index, 0, str(path))
    return found.missed + np.arange(found.rows)


def _load(path: pathlib.Path) -> Capture:
    """Read a file; Unfinished while it is not there or has no header yet, BadInput for what is no capture."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise Unfinished(f"{path} is not there (yet); check roots.raw and source.match") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); ask for read permission on it") from error
    if not content:
        raise Unfinished(f"{path} is empty; it is still being written")
    try:
        return parse(content)
    except Unfinished as error:
        raise Unfinished(f"{path}: {error}") from error
    except (BadInput, ValueError, KeyError, TypeError, AssertionError) as error:
        said = " ".join(str(error).split()) + _other_kind(content)
        raise BadInput(f"{path} is not a PandABox capture that can be read: {said}") from error


def _other_kind(content: bytes) -> str:
    """Return what a file looks like that is no capture, for the end of a sentence."""
    return f"; {found}" if (found := of_bytes(content[:BEGINNING])) and "PandABox" not in found.what else ""


def parse(content: bytes) -> Capture:
    """Return a capture from the bytes of a file."""
    if panda_arming.XML.match(content):
        return capture(panda_arming.of_frames(content))
    if content.startswith(b"{"):
        return _json(content.splitlines(keepends=True))
    if TEXT.match(content):
        return capture(panda_arming.of_text(content))
    messages = list(_recorded(content))
    if not messages:
        raise BadInput("it begins like no known kind of capture")
    if messages[0].lstrip().startswith(b"{"):
        return _json(messages)
    text = b"".join(part if part.endswith(b"\n") else part + b"\n" for part in messages)
    return capture(panda_arming.of_text(text))


def _recorded(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a recorded stream, whatever they are wrapped in; an incomplete last one is left out."""
    try:
        import cbor2  # only for recorded streams
    except ImportError as error:
        raise BadInput("recorded streams need the package cbor2: pip install 'beamtide[points]'") from error
    stream = io.BytesIO(content)
    while stream.tell() < len(content):
        try:
            item = cbor2.load(stream)
        except cbor2.CBORDecodeEOF:
            return
        except cbor2.CBORDecodeError as error:
            raise BadInput(f"it begins like no known kind of capture, and is no CBOR sequence ({error})") from error
        yield from _bytes_in(item)


def _bytes_in(item: Any) -> Iterator[bytes]:
    value = getattr(item, "value", item)  # a CBOR tag
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _bytes_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _bytes_in(one)


def _json(messages: list[bytes]) -> Capture:
    """Read JSON messages: each of type "data" holds one value, or a block of values, per field, from `frame_number` on."""
    blocks: list[tuple[int, dict[str, NDArray[Any]]]] = []
    for message in messages:
        try:
            told = json.loads(message)
        except ValueError:
            if message is messages[-1]:  # still being written
                break
            raise
        if told.get("message_type") == "data":
            values = {name: np.atleast_1d(np.asarray(one, float)) for name, one in told.items() if name not in ENVELOPE}
            blocks.append((int(told["frame_number"]), values))
    if not blocks:
        raise Unfinished("there is no data in it (yet)")
    names = blocks[0][1].keys()
    if any(block.keys() != names or len({len(one) for one in block.values()}) != 1 for _, block in blocks):
        raise BadInput("its data messages do not all have the same fields, with one number of values each")
    columns = {name: np.concatenate([block[name] for _, block in blocks]) for name in names}
    index = np.concatenate([number + np.arange(len(next(iter(block.values())))) for number, block in blocks])
    return Capture(columns, index)


def _root(file: h5py.File, options: Mapping[str, str]) -> dict[str, str]:
    columns = [name for name, one in file.items() if isinstance(one, h5py.Dataset) and one.ndim == 1 and one.dtype.kind in "iuf"]
    if not columns:
        raise BadInput(f"{file.filename}: there are no columns at its root; is this a capture of a PandABox?")
    return {name: name for name in columns}


HDF5 = HdfFormat(layout=_root, uneven=True)
"""The writer adds the rows of a frame to one column after the other."""
FORMAT = PandaFormat()
