"""The only file that reads a clock.

Decisions use `monotonic`; wall time (`utc`) is for people and files, never for a decision.
"""

import datetime
import time
from collections.abc import Callable
from typing import cast

from beamtide.messages.base import Seconds

monotonic = cast(Callable[[], Seconds], time.monotonic)
"""The process's monotonic clock in seconds: the system's own function, because a wrapper takes as long as the answer."""


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
