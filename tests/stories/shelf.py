"""What cores of stories run on: a spool in memory that falls back to its last commit when a process crashes."""

from collections.abc import Iterable, Iterator

import xxhash

from beamtide.machine import Effect, Event, Forget, Keep, Machine, Parts, Tick
from beamtide.messages.base import Handle, Seconds


class Shelf:
    """Rows that fall back to the last commit in a crash; bodies of `heavy` bytes can be had by others on the same `host`."""

    def __init__(self, name: str = "", host: dict[Handle, bytes] | None = None, heavy: float = float("inf")) -> None:
        self.name, self.host, self.heavy, self.free = name, {} if host is None else host, heavy, float("inf")
        self.shown: dict[Handle, tuple[str, str]] = {}
        self.now: dict[tuple[str, str], bytes] = {}
        self.committed: dict[tuple[str, str], bytes] = {}

    def handle(self, table: str, key: str) -> Handle | None:
        body = self.read(table, key)
        if len(body) < self.heavy:
            return None
        handle = Handle(self.name, f"{xxhash.xxh3_64_intdigest(body):016x}", 0, len(body), xxhash.xxh3_64_intdigest(body))
        self.host[handle] = body
        self.shown[handle] = (table, key)
        return handle

    def borrow(self, handle: Handle) -> bytes:
        return self.host[handle]

    def room(self, size: int) -> str:
        return "" if size <= self.free else "the disk is full"

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        if isinstance(body, Handle):
            body = self.host[body]
        self.now[table, key] = b"".join(body) if isinstance(body, tuple) else body

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
                    self.keep(effect.table, effect.key, effect.body)
                elif isinstance(effect, Forget):
                    self.now.pop((effect.table, effect.key), None)
                effects.append(effect)
        return effects

    def commit(self) -> None:
        self.committed = dict(self.now)
        for handle, row in list(self.shown.items()):  # what no row needs any more is nowhere
            if self.now.get(row) is None:
                self.host.pop(handle, None)
                del self.shown[handle]

    def crash(self) -> None:
        self.now = dict(self.committed)
