"""What cores of stories run on: a spool in memory that falls back to its last commit when a process crashes."""

from collections.abc import Iterable, Iterator

from beamtide.machine import Effect, Event, Forget, Keep, Machine, Tick
from beamtide.messages.base import Seconds


class Shelf:
    """Rows that fall back to the last commit in a crash."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], bytes] = {}
        self.committed: dict[tuple[str, str], bytes] = {}

    def read(self, table: str, key: str) -> bytes:
        return self.now[table, key]

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        return iter([(key, body) for (name, key), body in sorted(self.now.items()) if name == table])

    def batch(self, machine: Machine, events: Iterable[Event], now: float) -> list[Effect]:
        """Let a core handle a batch as the pump does: rows count at once, a `Tick` ends it. The caller commits or crashes."""
        effects: list[Effect] = []
        for event in [*events, Tick()]:
            for effect in machine.handle(event, Seconds(now)):
                if isinstance(effect, Keep):
                    self.now[effect.table, effect.key] = effect.body
                elif isinstance(effect, Forget):
                    self.now.pop((effect.table, effect.key), None)
                effects.append(effect)
        return effects

    def commit(self) -> None:
        self.committed = dict(self.now)

    def crash(self) -> None:
        self.now = dict(self.committed)
