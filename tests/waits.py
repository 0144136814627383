"""Waiting for something to be so, never for a time."""

from collections.abc import Callable

from beamtide import clock


def wait_until(true: Callable[[], object], what: str = "what the test waits for", patience: float = 20.0) -> None:
    """Wait until something is true; AssertionError after `patience` seconds."""
    end = clock.monotonic() + patience
    while not true():
        assert clock.monotonic() < end, f"never: {what}"
        clock.pause(0.02)
