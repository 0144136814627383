"""The only file that reads a clock.

Decisions use `monotonic`; wall time (`utc`) is for people and files only.
"""

import datetime
import time
from collections.abc import Callable
from typing import cast

from beamtide.messages.base import Seconds

monotonic = cast(Callable[[], Seconds], time.monotonic)
"""The monotonic clock in seconds: the system's function itself, because a wrapper would double its cost."""


def utc() -> float:
    """Return Unix time in seconds."""
    return time.time()


def iso(seconds: float | None = None) -> str:
    """Return a time as ISO 8601 with the local zone, as NeXus wants it; default: now."""
    moment = time.time() if seconds is None else seconds
    return datetime.datetime.fromtimestamp(moment, tz=datetime.UTC).astimezone().isoformat(timespec="milliseconds")


def pause(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)
