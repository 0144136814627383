"""The cores of a site in this process: no socket, no thread, no disk of their own.

Theory: each core is driven as the pump does it: the events of a batch, whose rows count at once; a `Tick` that ends it; then its
messages, which lie in front of their addressees at once. When nobody has anything to say, time jumps to the next moment that a
core wants to be woken at. So a scan takes no longer than its computing, and runs in the same way each time.

Clock policy: the cores' clock begins at 0 and moves only in such jumps.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from beamline_side.services.components import SERVICES
from beamtide import registry
from beamtide.codec import Letter
from beamtide.component.service import Service, links_of
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, Broken, WireError
from beamtide.machine import Arrays, Event, Forget, Heard, Keep, Machine, Parts, Peer, Send, Tick, WakeAt, link
from beamtide.messages import Message, Refused
from beamtide.messages.base import Handle, Seconds
from beamtide.pump import Answer, Caller

WE: Peer = b"caller"
LONGEST = 3600.0
"""Seconds of the cores' clock after which an answer is not waited for any more."""


class MemoryStore:
    """Rows in memory."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, bytes]] = {}

    def read(self, table: str, key: str) -> bytes:
        """Return one row; KeyError if there is none."""
        return self._tables[table][key]

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Return all rows of a table, ordered by key."""
        return iter(sorted(self._tables.get(table, {}).items()))

    def handle(self, table: str, key: str) -> Handle | None:
        """Return None: what lies here is sent whole."""
        return None

    def borrow(self, handle: Handle) -> bytes:
        """Nothing is here."""
        raise KeyError(handle.spool)

    def room(self, size: int) -> str:
        """There is room."""
        return ""

    def progress(self) -> dict[str, float]:
        """Nothing to show."""
        return {}

    def keep(self, table: str, key: str, body: bytes | Parts | Handle) -> None:
        """Insert or replace a row."""
        assert not isinstance(body, Handle), "nobody was given a handle"
        self._tables.setdefault(table, {})[key] = b"".join(body) if isinstance(body, tuple) else body

    def forget(self, table: str, key: str) -> None:
        """Delete a row."""
        self._tables.get(table, {}).pop(key, None)

    def commit(self) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class _Driven:
    machine: Machine
    store: MemoryStore
    links: dict[str, str]
    inbox: deque[Heard] = field(default_factory=deque)
    due: bool = True
    """Whether it has not been told yet that time passed."""


class InProcessSite:
    """All cores of a deployment but the topology manager, and those that it adds."""

    def __init__(self, deployment: Deployment) -> None:
        self._now = 0.0
        self._ids = itertools.count(1 << 32)
        self._wakes: list[tuple[float, str]] = []
        self._answers: dict[int, tuple[Message, Arrays]] = {}
        self._cores: dict[str, _Driven] = {}
        for name in deployment.components():
            service = _service(deployment, name)
            if service is not None:
                store = MemoryStore()
                self._cores[name] = _Driven(service.build(deployment, name, store), store, links_of(deployment, name, service))
        self._run()

    def ask(self, to: str, message: Message, arrays: Arrays) -> tuple[Message, Arrays]:
        """Send a message to a component and return its answer, letting time pass as long as it takes."""
        number, end = next(self._ids), self._now + LONGEST
        self._cores[to].inbox.append(Heard(WE, message, number, 0, arrays))
        self._run()
        while number not in self._answers:
            if self._now > end or not self.wait():
                raise Broken(f"{to} never answers {type(message).__name__}; {self.why()}")
        return self._answers.pop(number)

    def wait(self) -> bool:
        """Let time jump to when somebody wants to be woken; return whether there is such a moment."""
        if not self._wakes:
            return False
        self._now = max(self._now, self._wakes[0][0])
        while self._wakes and self._wakes[0][0] <= self._now:
            self._cores[heapq.heappop(self._wakes)[1]].due = True
        self._run()
        return True

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        end = self._now + seconds
        while self._wakes and self._wakes[0][0] <= end:
            self.wait()
        self._now = end

    def why(self) -> str:
        """Return what the cores wait for."""
        told = {name: core.machine.why() for name, core in self._cores.items()}
        return "; ".join(f"{name}: {why}" for name, why in told.items() if why) or "nobody waits for anything"

    def _run(self) -> None:
        """Let every core handle what lies in front of it, until nothing does."""
        while waiting := [name for name, core in self._cores.items() if core.inbox or core.due]:
            for name in waiting:
                self._batch(name, self._cores[name])

    def _batch(self, name: str, core: _Driven) -> None:
        batch: list[Event] = [*core.inbox, Tick()]
        core.inbox.clear()
        core.due = False
        sends: list[Send] = []
        for event in batch:
            for effect in core.machine.handle(event, Seconds(self._now)):
                if isinstance(effect, Keep):
                    core.store.keep(effect.table, effect.key, effect.body)
                elif isinstance(effect, Forget):
                    core.store.forget(effect.table, effect.key)
                elif isinstance(effect, WakeAt):
                    heapq.heappush(self._wakes, (effect.deadline, name))
                elif isinstance(effect, Send):
                    sends.append(effect)
        core.machine.check()
        for send in sends:
            self._send(name, core, send)

    def _send(self, name: str, core: _Driven, send: Send) -> None:
        heard = Heard(name.encode(), send.message, send.id or next(self._ids), send.reply_to, send.arrays)
        if send.peer == WE:
            self._answers[send.reply_to] = send.message, send.arrays
        elif send.peer.startswith(link("")):
            self._cores[core.links[send.peer[1:].decode()]].inbox.append(heard)
        else:
            asker = self._cores[send.peer.decode()]
            back = next(own for own, to in asker.links.items() if to == name)
            asker.inbox.append(msgspec.structs.replace(heard, peer=link(back)))


class InProcessCaller(Caller):
    """Asks the cores of an `InProcessSite` as one asks services."""

    def __init__(self, deployment: Deployment, site: InProcessSite) -> None:
        self._site = site
        self._names = {deployment.address(name): name for name in deployment.components()}

    def close(self) -> None:
        """Nothing is open."""

    def connect(self, address: str) -> None:
        """Everybody is here."""

    def converse(
        self,
        address: str,
        message: Message,
        expect: type[Answer],
        *,
        arrays: Arrays | None = None,
        patience: float = 10.0,
    ) -> tuple[Answer, Arrays]:
        """Send a request and return its answer with its arrays. BadInput: it was refused."""
        while True:
            answer, found = self._site.ask(self._names[address], message, arrays or {})
            if isinstance(answer, expect):
                return answer, found
            if not isinstance(answer, Refused):
                raise WireError(f"{address} answered {type(answer).__name__}, expected {expect.__name__}")
            if answer.retry_after <= 0:
                raise BadInput(answer.reason)
            self._site.sleep(answer.retry_after)

    def tell(self, address: str, message: Message) -> list[Letter]:
        """Nobody listens to what needs no answer."""
        return []


def _service(deployment: Deployment, name: str) -> Service | None:
    if name in deployment.added:
        found: Any = registry.find("components", deployment.added[name].kind)
        return found if isinstance(found, Service) else None
    return SERVICES.get(name.partition(".")[0]) if name != "topology" else None
