"""The armings of a PandABox in one capture, as text or framed binary: the triggers of one follow those of the one before.

An arming ends with "END <samples> <reason>". Its count must be that of its rows. The reasons Ok and Disarmed say that nothing
was lost. Any other (Data overrun, Framing error, Early disconnect, …) says that the PandABox stopped: the rows before are
whole and in order, and nobody knows how many triggers were lost behind them. So an arming that follows has no place, unless a
column counts triggers. Of a raw framed stream that ended by an overrun of data the last frame is likely to be damaged
(pandablocks says so), and is left out.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamtide.errors import BadInput
from beamtide.formats.base import Unfinished
from beamtide.formats.panda_capture import Capture, CapturedField, capture

FIELD = re.compile(r"^\s+(\S+) (\S+) (\S+)(?: scale: (\S+) offset: (\S+) units: ?(.*))?$")
WHOLE = ("Ok", "Disarmed")
"""The reasons of an END behind which no trigger was lost."""
OVERRUN = "Data overrun"


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arming captured, and why it ended: None while it has not, or if nobody wrote it."""

    capture: Capture
    reason: str | None


def joined(arms: list[Arm]) -> Capture:
    """Return the captures of several armings as one."""
    captures = [arm.capture for arm in arms]
    first = captures[0]
    if any((one.columns.keys(), one.units) != (first.columns.keys(), first.units) for one in captures):
        raise BadInput("it was armed several times, with different fields; write a file for each")
    if len(arms) == 1:
        return first
    begins = np.cumsum([0, *(one.missed + one.rows for one in captures)])
    index = np.concatenate([begin + one.missed + np.arange(one.rows) for begin, one in zip(begins, captures, strict=False)])
    columns = {name: np.concatenate([one.columns[name] for one in captures]) for name in first.columns}
    return Capture(columns, index, first.units, unplaced=_unplaced(arms))


def _unplaced(arms: list[Arm]) -> str:
    """Say why nobody knows to which triggers the rows behind an arming belong; "" if all are known."""
    for number, arm in enumerate(arms[:-1], 1):
        if arm.reason not in WHOLE:
            why = f"ended by {arm.reason!r}" if arm.reason else "has no END"
            return (
                f"arming {number} of {len(arms)} {why} after {arm.capture.rows} triggers, so some were lost before the next one; "
                "capture a column that counts triggers and name it in options.trigger, or write a file for each arming"
            )
    return ""


def text(content: bytes) -> Capture:
    """Read the text form."""
    whole, _, _ = content.decode("ascii").rpartition("\n")  # without an incomplete last line
    lines = [line.rstrip("\r") for line in whole.split("\n") if line.strip() != "OK"]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith("END")]
    parts = [lines[begin:end] for begin, end in itertools.pairwise([0, *ends, len(lines)])]
    arms = [_text_arm(part) for part in parts if any(line.strip() == "fields:" for line in part)]
    if not arms:
        raise Unfinished("its header has no fields (yet)")
    return joined(arms)


def _text_arm(lines: list[str]) -> Arm:
    """Read one arming: "name: value" lines, "fields:", an indented line per field, numbers, and an END with their count."""
    at = next(number for number, line in enumerate(lines) if line.strip() == "fields:") + 1
    facts = dict(line.split(": ", 1) for line in lines[: at - 1] if ": " in line)
    fields = []
    while at < len(lines) and (told := FIELD.match(lines[at])) and not _is_number(told[1]):
        fields.append(CapturedField(f"{told[1]}.{told[3]}", float(told[4] or 1.0), float(told[5] or 0.0), told[6] or ""))
        at += 1
    end = next((line.split(maxsplit=2) for line in lines[at:] if line.startswith("END")), None)
    rows = [[float(word) for word in line.split()] for line in lines[at:] if line.strip() and not line.startswith("END")]
    if any(len(row) != len(fields) for row in rows):
        raise BadInput(f"a line of numbers does not have one for each of the {len(fields)} fields")
    if end and len(end) > 1 and end[1].isdecimal():
        _check_count(int(end[1]), len(rows))
    table = np.array(rows, float).reshape(len(rows), len(fields))
    missed = facts.get("missed", "0").strip()
    if not missed.isdecimal():
        raise BadInput(f"missed: {missed} is no number of triggers")
    columns = {one.name: table[:, number] for number, one in enumerate(fields)}
    found = capture(columns, fields, facts.get("process", "Scaled").strip(), int(missed))
    return Arm(found, (end[2].strip() if len(end) > 2 else "Ok") if end else None)


def framed(content: bytes) -> Capture:
    """Read the framed binary form, as it comes after "XML FRAMED SCALED" or "XML FRAMED RAW"."""
    try:
        from pandablocks.connections import DataConnection  # only for framed captures
        from pandablocks.responses import EndData, FrameData, StartData
    except ImportError as error:
        raise BadInput("framed captures need the package pandablocks: pip install 'beamtide[points]'") from error
    connection = DataConnection()
    connection.connect(scaled=True)
    arms: list[Arm] = []
    start, frames = None, list[NDArray[Any]]()
    for message in connection.receive_bytes(content):
        if isinstance(message, StartData):
            start, frames = message, []
        elif isinstance(message, FrameData):
            frames.append(message.data)
        elif isinstance(message, EndData):
            _check_count(message.samples, sum(map(len, frames)))
            arms.append(_framed_arm(start, frames, message.reason.value))
            start = None
    if start is not None:
        arms.append(_framed_arm(start, frames, None))
    if not arms:
        raise Unfinished("its header is not complete (yet)")
    return joined(arms)


def _framed_arm(start: Any, frames: list[NDArray[Any]], reason: str | None) -> Arm:
    fields = [
        CapturedField(
            f"{one.name}.{one.capture}",
            1.0 if one.scale is None else one.scale,
            0.0 if one.offset is None else one.offset,
            one.units or "",
        )
        for one in start.fields
    ]
    if reason == OVERRUN and start.process == "Raw":
        frames = frames[:-1]
    rows = np.concatenate(frames) if frames else np.empty(0, [(one.name, float) for one in fields])
    return Arm(capture({one.name: rows[one.name] for one in fields}, fields, start.process, start.missed), reason)


def _check_count(counted: int, held: int) -> None:
    if counted != held:
        raise BadInput(f"its END counts {counted} rows, and it holds {held}: some were lost, nobody knows which")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
