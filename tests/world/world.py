"""An imaginary site: all real cores of two pipelines, the second fenced on the first, on an imaginary cable and clock.

One seed decides everything: what is lost, doubled, delayed (and so overtaken), who crashes at which effect, how many messages
a batch holds. Each core is driven as `beamtide.pump.Pump` does it: events of a batch, whose rows count at once; a `Tick` that
ends it; one commit; then the sends, and an `Unreachable` for a peer that is gone. A crash rolls the rows back to the last
commit. Every process has its own clock: they do not even agree on what time it is.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from beamline_side.cores.buffer.buffer import BufferMachine
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.fence import FenceMachine
from beamline_side.cores.metadata import MetadataMachine
from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import SorterMachine
from beamtide.config.models import LeaseConfig
from beamtide.machine import Arrays, Effect, Event, Forget, Heard, Keep, Machine, Send, Tick, Unreachable, WakeAt, link
from beamtide.messages.base import Message, Seconds
from tests.builders.sites import make_pipeline
from tests.stories.shelf import Shelf

LEASES = LeaseConfig(ttl=2.0, beat=0.6, faults=2, losses=2)
LONGEST_SLEEP = 1.0
BATCH = 256
STORY = 40
LINKS = {"fence": {"sink": "sink", "metadata": "metadata"}, "sorter.p": {"sink": "sink"}, "sorter.q": {"sink": "sink"}}
for name in "pq":
    LINKS[f"buffer.{name}"] = {"distributor": "distributor", "fence": "fence", "sorter": f"sorter.{name}"}
COMPONENTS = ("metadata", "distributor", "sink", "fence", "buffer.p", "buffer.q", "sorter.p", "sorter.q")


def build(name: str, shelf: Shelf, order: str) -> Machine:
    """Make the core of a component, as its service does."""
    kind, _, pipeline = name.partition(".")
    match kind:
        case "buffer":
            config = make_pipeline(pipeline, buffer={"order": order})
            return BufferMachine(config, LEASES, shelf)
        case "sorter":
            return SorterMachine(pipeline, shelf)
        case "distributor":
            return DistributorMachine({"p": "p", "q": "q"}, shelf)
        case "fence":
            return FenceMachine(frozenset("pq"))
        case "sink":
            return SinkMachine(shelf)
    return MetadataMachine(shelf)


@dataclass(slots=True)
class Weather:
    """How bad it is: probabilities per message or per batch, and the longest delay in seconds."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    crash: float = 0.0
    outage: float = 0.0
    """Share of crashes after which the process stays away for a while."""
    stall: float = 0.0
    """Share of batches before which a process stands still for some seconds."""
    misfortune: float = 0.0
    """Share of attempts that do not end well."""


@dataclass(slots=True)
class Process:
    """A component: its disk, its core while it lives, and what lies in front of it."""

    name: str
    shelf: Shelf
    machine: Machine | None = None
    boot: int = 0
    skew: float = 0.0
    inbox: list[Heard] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    next_step: float = float("inf")
    stalled: float = 0.0
    """Until when it stands still."""
    cut_off: bool = False
    """Whether nothing that it sends arrives, and nothing reaches it."""


class Laws(Protocol):
    """Who watches."""

    def delivered(self, process: Process, event: Event) -> None: ...
    def handled(self, process: Process, event: Event, effects: list[Effect]) -> None: ...
    def committed(self, process: Process, effects: list[Effect]) -> None: ...
    def sent(self, process: Process, send: Send, to: str) -> None: ...


class Crash(Exception):
    """The process ends here."""


@dataclass(slots=True)
class Question:
    """What an actor wants to know, asked again under the same id over a new connection after silence."""

    actor: str
    to: str
    message: Message
    arrays: Arrays
    then: Callable[[Message], None]
    patience: float = 2.0
    until: float = float("inf")
    peer: bytes = b""


class World:
    """Clock, cable and processes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.weather = Weather()
        self.story: deque[tuple[float, str, Any]] = deque(maxlen=STORY)
        self.steps = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self.order = self.random.choice(["fifo", "lifo", "priority"])
        heavy, host = self.random.choice([(0, {}), (0, None), (float("inf"), None)])
        self.processes = {name: Process(name, Shelf(name, host, heavy)) for name in COMPONENTS}
        self.actors: set[str] = set()
        """Scripted peers that live: workers, the source, an operator."""
        self.questions: dict[int, Question] = {}
        self.peers: dict[bytes, tuple[str, int]] = {}
        """Identities as the called side knows them: (component, its boot) or (actor, 0)."""
        self.laws: Laws

    # --- time --------------------------------------------------------------------------------------------------------

    def at(self, delay: float, act: Callable[[], None]) -> None:
        """Do something `delay` seconds from now."""
        heapq.heappush(self._agenda, (self.now + delay, next(self._numbers), act))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, act = heapq.heappop(self._agenda)
            act()
        self.now = until

    def tell(self, what: str, detail: Any = "") -> None:
        """Note what happened."""
        self.story.append((self.now, what, detail))

    # --- processes ---------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a process from what its disk holds."""
        process = self.processes[name]
        process.shelf.crash()
        process.boot += 1
        process.skew = self.random.uniform(0, 1e4)
        process.inbox, process.wakes = [], []
        process.machine = build(name, process.shelf, self.order)
        self.tell(f"{name} starts")
        process.machine.check()
        self._step_at(process, 0.0)

    def _step_at(self, process: Process, delay: float) -> None:
        delay = max(delay, process.stalled - self.now)
        when = self.now + delay
        if when < process.next_step:
            process.next_step = when
            boot = process.boot
            self.at(delay, lambda: self._step(process, boot, when))

    def _step(self, process: Process, boot: int, when: float) -> None:
        if process.machine is None or process.boot != boot or process.next_step != when:
            return
        process.next_step = float("inf")
        if self.weather.stall and self.random.random() < self.weather.stall:
            process.stalled = self.now + self.random.uniform(1.0, 5.0)
            self.tell(f"{process.name} stands still until {process.stalled:.1f}")
            self._step_at(process, 0.0)
            return
        self.steps += 1
        batch, process.inbox = process.inbox[:BATCH], process.inbox[BATCH:]
        try:
            self._batch(process, batch)
        except Crash:
            self._die(process)
            return
        sleep = LONGEST_SLEEP
        if process.wakes:
            sleep = min(sleep, max(0.0, process.wakes[0] - process.skew - self.now))
        self._step_at(process, 0.001 if process.inbox else max(1e-6, sleep))

    def _batch(self, process: Process, batch: list[Heard]) -> None:
        doomed = self.weather.crash and self.random.random() < self.weather.crash * (1 + len(batch))
        before = doomed and self.random.random() < 0.4
        last = self.random.randint(0, len(batch)) if before else -1
        outgoing: list[Effect] = []
        for number, event in enumerate([*batch, Tick()]):
            if isinstance(event, Tick):
                clock = self.now + process.skew
                process.wakes = [wake for wake in process.wakes if wake > clock]
                heapq.heapify(process.wakes)
            else:
                self.tell(f"{process.name} hears", event)
                self.laws.delivered(process, event)
            outgoing += self._handle(process, event)
            if number == last:
                self.tell(f"{process.name} dies before its commit")
                raise Crash
        self._perform(process, outgoing, bool(doomed))

    def _handle(self, process: Process, event: Event) -> list[Effect]:
        assert process.machine is not None
        effects = process.machine.handle(event, Seconds(self.now + process.skew))
        for effect in effects:
            if isinstance(effect, Keep):
                assert process.name != "fence", "the fence keeps nothing"
                process.shelf.keep(effect.table, effect.key, effect.body)
            elif isinstance(effect, Forget):
                process.shelf.now.pop((effect.table, effect.key), None)
        self.laws.handled(process, event, effects)
        process.machine.check()
        return effects

    def _perform(self, process: Process, effects: list[Effect], doomed: bool) -> None:
        process.shelf.commit()
        self.laws.committed(process, effects)
        rest = [effect for effect in effects if isinstance(effect, Send | WakeAt)]
        last = self.random.randint(0, len(rest)) if doomed else -1
        for number, effect in enumerate(rest):
            if number == last:
                break
            if isinstance(effect, WakeAt):
                heapq.heappush(process.wakes, effect.deadline)
            else:
                self._send(process, effect)
        if doomed:
            self.tell(f"{process.name} dies after {last} of {len(rest)} effects")
            raise Crash

    def _die(self, process: Process) -> None:
        process.machine = None
        process.next_step = float("inf")
        away = self.random.uniform(1.0, 8.0) if self.random.random() < self.weather.outage else self.random.uniform(0.05, 0.5)
        self.at(away, lambda: self.start(process.name))

    # --- the cable ---------------------------------------------------------------------------------------------------

    def _send(self, process: Process, send: Send) -> None:
        number = next(self._numbers)
        if send.peer.startswith(b">"):
            to = LINKS[process.name][send.peer[1:].decode()]
            reachable = self.processes[to].machine is not None or self.random.random() < 0.5  # it may queue, or be noticed
        else:
            to, boot = self.peers.get(send.peer, ("", 0))
            reachable = (to in self.actors) or (to in self.processes and self.processes[to].boot == boot)
            reachable = reachable or self.random.random() < 0.3  # nobody noticed yet
        self.laws.sent(process, send, to)
        if not reachable:
            self.tell(f"{process.name} cannot reach {to or send.peer.decode()}")
            gone = self._handle(process, Unreachable(send.peer))
            self._perform(process, gone, doomed=False)
            return
        self.tell(f"{process.name} to {to}", send)
        boot = process.boot
        for delay in self.delays():
            self.at(delay, lambda: self._arrive(process.name, boot, to, send, number))

    def delays(self) -> list[float]:
        """Return after how many seconds each copy of a message arrives."""
        weather, dice = self.weather, self.random.random
        if weather.lost and dice() < weather.lost:
            return []
        copies = 2 if weather.doubled and dice() < weather.doubled else 1
        return [
            self.random.uniform(0.1, 5.0) if weather.late and dice() < weather.late else 0.0005 + 0.004 * dice()
            for _ in range(copies)
        ]

    def _arrive(self, sender: str, boot: int, to: str, send: Send, number: int) -> None:
        if self.processes[sender].cut_off:
            return
        if to in self.processes:
            target = self.processes[to]
            if send.peer.startswith(b">"):
                peer = f"{sender} {boot} {target.boot}".encode()
                self.peers[peer] = (sender, boot)
            else:
                if target.boot != self.peers[send.peer][1]:
                    return
                peer = link(next(name for name, other in LINKS[to].items() if other == sender))
            self.deliver(to, Heard(peer, send.message, number, send.reply_to, send.arrays))
        elif to in self.actors and (question := self.questions.get(send.reply_to)) is not None and question.actor == to:
            if question.peer == send.peer:  # an answer to a connection that was given up is heard by nobody
                del self.questions[send.reply_to]
                self.tell(f"{to} hears", send.message)
                question.then(send.message)

    def deliver(self, to: str, heard: Heard) -> None:
        """Lay a message in front of a process."""
        process = self.processes[to]
        if process.machine is not None and not process.cut_off:
            process.inbox.append(heard)
            self._step_at(process, self.random.choice((0.0001, 0.0001, 0.01)))

    # --- actors ------------------------------------------------------------------------------------------------------

    def ask(self, question: Question) -> None:
        """Ask until there is an answer, as `beamtide.pump.Caller` does; `then` gets it."""
        number = next(self._numbers)
        self.questions[number] = question
        self._ask(number)

    def _ask(self, number: int) -> None:
        question = self.questions.get(number)
        if question is None:
            return
        if question.actor not in self.actors or self.now >= question.until:
            del self.questions[number]
            return
        self.peers.pop(question.peer, None)
        question.peer = f"{question.actor} {next(self._numbers)}".encode()
        self.peers[question.peer] = (question.actor, 0)
        heard = Heard(question.peer, question.message, number, 0, question.arrays)
        for delay in self.delays():
            self.at(delay, lambda: self.deliver(question.to, heard))
        self.at(question.patience, lambda: self._ask(number))

    def cut(self, name: str, seconds: float) -> None:
        """Pull the plug of a component's cable for some seconds."""
        process = self.processes[name]
        process.cut_off = True
        self.tell(f"{name} is cut off for {seconds:.1f} s")
        self.at(seconds, lambda: setattr(process, "cut_off", False))

    def settle(self) -> None:
        """The sun comes out: nothing is lost from here on, and nobody dies."""
        self.weather = Weather()
        for process in self.processes.values():
            process.cut_off = False
        self.tell("the faults stop")


def lines(story: Iterable[tuple[float, str, Any]]) -> str:
    """Write a story for people."""
    return "\n".join(f"{now:9.4f}  {what} {str(detail)[:260]}" for now, what, detail in story)
