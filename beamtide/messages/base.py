"""The base class of messages, types that many of them use, and the three answers to any request."""

from typing import NewType

import msgspec

ScanId = NewType("ScanId", str)
PipelineName = NewType("PipelineName", str)
TaskId = NewType("TaskId", str)
Digest = NewType("Digest", str)
"""Content address of settings or a calibration file: 64 hexadecimal digits of SHA-256."""
Seconds = NewType("Seconds", float)


class Handle(msgspec.Struct, frozen=True, array_like=True):
    """Where a payload lies: bytes `[offset, offset + length)` of a segment of a component's spool, and their xxh3-64.

    Only components on the same host can read what a handle names.
    """

    spool: str
    segment: str
    offset: int
    length: int
    xxh3: int


class Message(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One message of the wire; its class name (or the one in `WIRE_NAMES`) is its kind."""


WIRE_NAMES = {"PipelineReport": "CrewReport", "PipelineRequest": "CrewRequest", "SettingsAnswer": "Settings"}
"""Renamed messages: class name -> name on the wire, which stays, so that old and new versions understand each other."""


def kind_of(message: Message | type[Message]) -> str:
    """Return the name under which a message travels."""
    name = type(message).__name__ if isinstance(message, Message) else message.__name__
    return WIRE_NAMES.get(name, name)


class Ok(Message, frozen=True, kw_only=True):
    """The request was carried out and, where that is promised, is on disk."""

    note: str = ""


class Refused(Message, frozen=True, kw_only=True):
    """The request was not carried out; `reason` is one sentence for people.

    `retry_after` > 0 (seconds) says that the same request may succeed later; 0 says that it never will.
    """

    reason: str
    retry_after: float = 0.0


class Unsupported(Message, frozen=True, kw_only=True):
    """This peer does not know messages of that kind."""

    kind: str
