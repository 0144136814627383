"""What a PandABox sends while it is armed: a header, rows, and a line that says how it ended; as text and as framed binary.

The last line counts the rows that were sent, and says why no more came. After "Ok" and "Disarmed" there were no more triggers.
After anything else ("Data overrun", "Framing error", "Early disconnect" …) later triggers came and are lost, so the number of
triggers of this arming is not known. After "Data overrun" of a framed raw capture the last frame may hold rows that were written
over while they were sent (PandABlocks-server, `passthrough_capture_block`); in all other modes the server checks them first.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished
from beamtide.formats.panda_capture import Arming, CapturedField

FIELD = re.compile(r"^\s+(\S+) (\S+) (\S+)(?: scale: (\S+) offset: (\S+) units: ?(.*))?$")
XML = re.compile(rb"(OK\r?\n)?\s*<header>")
FORMAT = re.compile(rb"<data[^>]*\sformat=\"(\w+)\"")


def of_text(content: bytes) -> list[Arming]:
    """Return the armings of a text capture; Unfinished without a whole header."""
    whole, _, _ = content.decode("utf-8", "replace").rpartition("\n")  # without an incomplete last line
    lines = [line.rstrip("\r") for line in whole.split("\n") if line.strip() != "OK"]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith("END")]
    parts = [lines[begin:end] for begin, end in itertools.pairwise([0, *ends, len(lines)])]
    armings = [_of_lines(part) for part in parts if any(line.strip() == "fields:" for line in part)]
    if not armings:
        raise Unfinished("its header has no fields (yet)")
    return armings


def _of_lines(lines: list[str]) -> Arming:
    """Read one arming: "name: value" lines, "fields:", an indented line per field, numbers, and an END with their count."""
    at = next(number for number, line in enumerate(lines) if line.strip() == "fields:") + 1
    facts = dict(line.split(": ", 1) for line in lines[: at - 1] if ": " in line)
    fields = []
    while at < len(lines) and (told := FIELD.match(lines[at])) and not _is_number(told[1]):
        fields.append(CapturedField(f"{told[1]}.{told[3]}", float(told[4] or 1.0), float(told[5] or 0.0), told[6] or ""))
        at += 1
    end = next((line.split(maxsplit=2)[1:] for line in lines[at:] if line.startswith("END")), [])
    rows = [[float(word) for word in line.split()] for line in lines[at:] if line.strip() and not line.startswith("END")]
    if any(len(row) != len(fields) for row in rows):
        raise BadInput(f"a line of numbers does not have one for each of the {len(fields)} fields")
    if end and end[0].isdecimal():
        _check_count(int(end[0]), len(rows))
    table = np.array(rows, float).reshape(len(rows), len(fields))
    missed = facts.get("missed", "0").strip()
    if not missed.isdecimal():
        raise BadInput(f"missed: {missed} is no number of triggers")
    columns = {one.name: table[:, number] for number, one in enumerate(fields)}
    process = facts.get("process", "Scaled").strip()
    return Arming(columns, fields, process, int(missed), " ".join(end[1:]).strip() if end else None)


def _check_count(said: int, rows: int) -> None:
    if said != rows:
        raise BadInput(f"its END counts {said} lines of numbers, and it holds {rows}: some were lost, nobody knows which")


def of_frames(content: bytes) -> list[Arming]:
    """Return the armings of a framed capture, as it comes after "XML FRAMED SCALED" or "XML FRAMED RAW"."""
    try:
        from pandablocks.responses import EndData, FrameData, StartData  # only for framed captures
    except ImportError as error:
        raise BadInput("framed captures need the package pandablocks: pip install 'beamtide[points]'") from error
    armings, frames, start = list[Arming](), list[NDArray[Any]](), None
    for message in _messages(content):
        if isinstance(message, StartData):
            if start is not None:
                armings.append(_of_frames(start, frames, "no END"))
            start, frames = message, []
        elif isinstance(message, FrameData):
            frames.append(message.data)
        elif isinstance(message, EndData) and start is not None:
            _check_count(message.samples, sum(map(len, frames)))
            armings.append(_of_frames(start, frames, message.reason.value))
            start = None
    if start is not None:
        armings.append(_of_frames(start, frames, None))
    if not armings:
        raise Unfinished("its header is not complete (yet)")
    return armings


def _messages(content: bytes) -> Iterator[Any]:
    from pandablocks.connections import DataConnection

    told = FORMAT.search(content)
    if told and told[1] != b"Framed":
        raise BadInput(
            f"it has an XML header and format {told[1].decode()}; only framed captures are read with one: ask for XML FRAMED "
            "SCALED, or for ASCII without XML"
        )
    connection = DataConnection()
    connection.connect(scaled=True)
    yield from connection.receive_bytes(content if content.startswith(b"OK") else b"OK\n" + content)


def _of_frames(start: Any, frames: list[NDArray[Any]], end: str | None) -> Arming:
    fields = [
        CapturedField(f"{one.name}.{one.capture}", 1.0 if one.scale is None else one.scale, one.offset or 0.0, one.units or "")
        for one in start.fields
    ]
    rows = np.concatenate(frames) if frames else np.empty(0, [(one.name, float) for one in fields])
    corrupt = len(frames[-1]) if frames and start.process == "Raw" and end == "Data overrun" else 0
    return Arming({one.name: rows[one.name] for one in fields}, fields, start.process, start.missed, end, corrupt)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
