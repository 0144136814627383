"""Captures of a PandABox, as it sends them or as others have saved them: one file, columns by trigger.

Four ways in which the same capture is written are told apart by their first bytes:
- text, as `ASCII` on port 8889: a header that says what each field is, then one line of numbers per trigger;
- framed binary, as `XML FRAMED` on port 8889 (decoded by the package pandablocks);
- JSON messages with `message_type`, one a line, with one value or a block of values per field;
- a CBOR sequence of any of these messages, as streams are recorded (package cbor2).

Columns are named "FIELD.Capture" ("INENC1.VAL.Mean"). The header is obeyed: "process: Scaled" is in units already; "Unscaled" is
averaged already, and gets scale and offset; "Raw" gets them too, and its mean is a sum over samples, so it needs PCAP.SAMPLES.
"missed: N" says that the first N triggers came before the stream did: row 0 is trigger N. Units of the header are passed on.
A text with several armings goes on counting from one to the next; an END that counts other lines than there are is refused.
Options: `trigger`, the column that counts triggers (lost ones become NaN), and `first_trigger` (1). JSON blocks carry
`frame_number` and need no such column.
"""

import io
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Extent, Unfinished
from beamtide.formats.panda_capture import Capture, CapturedField, capture
from beamtide.formats.recognise import BEGINNING, of_bytes
from beamtide.formats.trigger import Columns, first_of, indexes, spread

FIELD = re.compile(r"^\s+(\S+) (\S+) (\S+)(?: scale: (\S+) offset: (\S+) units: ?(.*))?$")
TEXT = re.compile(rb"(OK\r?\n)?\s*(arm_time|missed)")
"""How a text capture begins; a plain TCP client keeps the "OK" that the server answers first."""
ENVELOPE = {"message_id", "message_type", "version", "frame_number", "arm_time", "detector_specific"}


@dataclass(frozen=True, slots=True)
class PandaFormat:
    """A capture in one file."""

    def probe(self, path: pathlib.Path, options: Mapping[str, str]) -> Extent:
        """Say how many triggers a file holds so far."""
        found = _load(path)
        index = _index(found, options, path)
        counted = "trigger" in options or found.index is not None
        held, begin = (int(index[-1]) + 1, int(index[0])) if index.size else (0, 0)
        return Extent(held, count=0 if counted else None, begin=begin)

    def read(self, path: pathlib.Path, first: int, last: int, options: Mapping[str, str]) -> Columns:
        """Return the columns of triggers `first <= index < last`."""
        found = _load(path)
        index = _index(found, options, path)
        held = int(index[-1]) + 1 if index.size else 0
        if not 0 <= first <= last <= held:
            raise BadInput(f"{path}: triggers {first} to {last} were asked for, but it holds {held}; was it written again?")
        low, high = np.searchsorted(index, [first, last])
        return spread({name: rows[low:high] for name, rows in found.columns.items()}, index[low:high], first, last)

    def units(self, path: pathlib.Path, options: Mapping[str, str]) -> dict[str, str]:
        """Return the units of columns, as the header states them."""
        return _load(path).units

    def shape_of(self, path: pathlib.Path) -> tuple[int, ...] | None:
        """Return None: a capture does not know its scan."""
        return None


def _index(found: Capture, options: Mapping[str, str], path: pathlib.Path) -> NDArray[np.int64]:
    name = options.get("trigger")
    if name is not None:
        if name not in found.columns:
            raise BadInput(f"{path}: options.trigger: there is no column {name!r}, only {', '.join(sorted(found.columns))}")
        return indexes(found.columns[name], first_of(options, path), str(path))
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
    if content.startswith(b"OK\n") and not TEXT.match(content):
        return _framed(content)
    if content.startswith(b"{"):
        return _json(content.splitlines(keepends=True))
    if TEXT.match(content):
        return _ascii(content)
    messages = list(_recorded(content))
    if not messages:
        raise BadInput("it begins like no known kind of capture")
    if messages[0].lstrip().startswith(b"{"):
        return _json(messages)
    return _ascii(b"".join(part if part.endswith(b"\n") else part + b"\n" for part in messages))


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


def _ascii(content: bytes) -> Capture:
    """Read the text form; each time the PandABox is armed it begins anew, and the triggers go on where they ended."""
    whole, _, _ = content.decode("ascii").rpartition("\n")  # without an incomplete last line
    lines = [line.rstrip("\r") for line in whole.split("\n") if line.strip() != "OK"]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith("END")]
    parts = [lines[begin:end] for begin, end in itertools.pairwise([0, *ends, len(lines)])]
    arms = [_arm(part) for part in parts if any(line.strip() == "fields:" for line in part)]
    if not arms:
        raise Unfinished("its header has no fields (yet)")
    if any((arm.columns.keys(), arm.units) != (arms[0].columns.keys(), arms[0].units) for arm in arms):
        raise BadInput("it was armed several times, with different fields; write a file for each")
    if len(arms) == 1:
        return arms[0]
    begins = np.cumsum([0, *(arm.missed + arm.rows for arm in arms)])
    index = np.concatenate([begin + arm.missed + np.arange(arm.rows) for begin, arm in zip(begins, arms, strict=False)])
    return Capture({name: np.concatenate([arm.columns[name] for arm in arms]) for name in arms[0].columns}, index, arms[0].units)


def _arm(lines: list[str]) -> Capture:
    """Read one arming: "name: value" lines, "fields:", an indented line per field, numbers, and an END with their count."""
    at = next(number for number, line in enumerate(lines) if line.strip() == "fields:") + 1
    facts = dict(line.split(": ", 1) for line in lines[: at - 1] if ": " in line)
    fields = []
    while at < len(lines) and (told := FIELD.match(lines[at])) and not _is_number(told[1]):
        name, scale = f"{told[1]}.{told[3]}", float(told[4] or 1.0)
        fields.append(CapturedField(name, scale, float(told[5] or 0.0), told[3] == "Mean", told[6] or ""))
        at += 1
    end = next((line.split() for line in lines[at:] if line.startswith("END")), [])
    rows = [[float(word) for word in line.split()] for line in lines[at:] if line.strip() and not line.startswith("END")]
    if any(len(row) != len(fields) for row in rows):
        raise BadInput(f"a line of numbers does not have one for each of the {len(fields)} fields")
    if len(end) > 1 and end[1].isdecimal() and int(end[1]) != len(rows):
        raise BadInput(f"its END counts {end[1]} lines of numbers, and it holds {len(rows)}: some were lost, nobody knows which")
    table = np.array(rows, float).reshape(len(rows), len(fields))
    missed = facts.get("missed", "0").strip()
    if not missed.isdecimal():
        raise BadInput(f"missed: {missed} is no number of triggers")
    columns = {one.name: table[:, number] for number, one in enumerate(fields)}
    return capture(columns, fields, facts.get("process", "Scaled").strip(), int(missed))


def _framed(content: bytes) -> Capture:
    """Read the framed binary form, as it comes after "XML FRAMED SCALED" or "XML FRAMED RAW"."""
    try:
        from pandablocks.connections import DataConnection
        from pandablocks.responses import FrameData, StartData
    except ImportError as error:
        raise BadInput("framed captures need the package pandablocks: pip install 'beamtide[points]'") from error
    connection = DataConnection()
    connection.connect(scaled=True)
    start, frames = None, []
    for message in connection.receive_bytes(content):
        if isinstance(message, StartData):
            start = message
        elif isinstance(message, FrameData):
            frames.append(message.data)
    if start is None:
        raise Unfinished("its header is not complete (yet)")
    fields = [
        CapturedField(f"{one.name}.{one.capture}", one.scale or 1.0, one.offset or 0.0, one.capture == "Mean", one.units or "")
        for one in start.fields
    ]
    rows = np.concatenate(frames) if frames else np.empty(0, [(one.name, float) for one in fields])
    columns = {one.name: rows[one.name] for one in fields}
    return capture(columns, fields, start.process, start.missed)


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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FORMAT = PandaFormat()
