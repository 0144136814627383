"""A site with keys, and a service behind its door, for the tests of this folder."""

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from beamtide import clock
from beamtide.machine import Effect, Event, Heard, Send
from beamtide.messages import Message, Ok
from beamtide.messages.base import Seconds
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Limits, Pump
from beamtide.pump.authentication import new_pair
from beamtide.security.guard import Guard
from beamtide.security.key_files import COMPONENT, Identity, KeyEntry, write
from beamtide.security.roles import Role
from beamtide.session import Session
from tests.builders.cores import Quiet, pumping
from tests.ports import free_ports

HOUR = 3600.0


@dataclass
class Door:
    """The keys of a site: its folder, and who was given one."""

    folder: pathlib.Path
    given: dict[str, Identity] = field(default_factory=dict)

    def give(self, name: str, role: Role, seconds: float = HOUR, beamtime: str = "") -> Identity:
        """Make a key."""
        public, secret = new_pair()
        server = self.given[COMPONENT].server if COMPONENT in self.given else public
        identity = Identity(KeyEntry(name, role, public, clock.utc() + seconds, beamtime), secret, server)
        write(self.folder, identity)
        self.given[name] = identity
        return identity


@dataclass
class Echo(Quiet):
    """Says `Ok` to everything that reaches it, and remembers it."""

    heard: list[Message] = field(default_factory=list)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        if not isinstance(event, Heard):
            return []
        self.heard.append(event.message)
        return [Send(event.peer, Ok(note="echo"), event.id)]


def site_keys(folder: pathlib.Path) -> Door:
    """Make a folder with one key of each role."""
    door = Door(folder / "keys")
    for role in ("component", "worker", "user", "viewer"):
        door.give(role, role)  # type: ignore[arg-type]
    return door


def free_address() -> str:
    """Return a TCP address that nobody listens at."""
    return f"tcp://127.0.0.1:{free_ports(1)}"


@contextmanager
def served(door: Door, beamtime: str = "") -> Iterator[tuple[str, Echo, Pump]]:
    """Serve an echo behind the door."""
    address, core = free_address(), Echo()
    card = ComponentCard(name="echo", kind="echo", address=address, host="here", pid=1, version="0", boot="0")
    guard = Guard(door.given[COMPONENT], door.folder, beamtime)
    pump = Pump(core, Session(card), {}, limits=Limits(guard=guard))  # type: ignore[arg-type]
    with pumping(pump):
        yield address, core, pump
