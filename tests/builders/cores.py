"""What stands in for a service: a core that has nothing to say of itself, and pumps that run in threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from beamtide.pump import Outside, Pump


class Quiet:
    """The part of a core that a test does not care about."""

    def progress(self) -> dict[str, float]:
        return {}

    def why(self) -> str:
        return ""

    def check(self) -> None: ...


@contextmanager
def pumping(*pumps: Pump, outside: Outside | None = None) -> Iterator[None]:
    """Run pumps, each in a thread of its own; they must end within ten seconds when they are told to."""
    threads = [threading.Thread(target=pump.run, args=(outside,)) for pump in pumps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for pump in pumps:
            pump.stop()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads), "a pump does not end"
