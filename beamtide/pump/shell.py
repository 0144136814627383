"""What the pump needs of the shell around it: something that keeps rows, and something that makes the calls of the core."""

from collections.abc import Iterable
from typing import Protocol

from beamtide.machine import Call, Parts, Returned, Shelf
from beamtide.messages.base import Handle


class RowStore(Protocol):
    """What the pump needs of whatever keeps the rows of its core."""

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Insert or replace a row in the open transaction."""
        ...

    def forget(self, table: str, key: str) -> None:
        """Delete a row in the open transaction."""
        ...

    def commit(self) -> None:
        """Make the open transaction durable."""
        ...

    def progress(self) -> dict[str, float]:
        """Return what every status must show."""
        ...

    def room(self, size: int) -> str:
        """Return why `size` bytes of new work cannot be kept now, in one sentence; "" if they can."""
        ...


class Store(Shelf, RowStore, Protocol):
    """What a component keeps its rows in: the pump writes, the core reads."""


class Outside(Protocol):
    """What a shell can do beside sending and keeping. Nothing here may wait."""

    def call(self, call: Call) -> None:
        """Begin what the core asked for; what it asked to keep is on disk."""
        ...

    def returned(self) -> Iterable[Returned]:
        """Return what has come back since the last time."""
        ...
