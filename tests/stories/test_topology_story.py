"""Random stories of components and the topology manager over a cable that loses and doubles: who lives is shown as running,
who is silent as lost, of two with one name the newer stays, and a restarted manager knows all of them again soon."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamline_side.cores.topology import BOOTS, LOST_AFTER, TopologyMachine
from beamtide.machine import Effect, Event, Heard, Send, Tick, Unreachable, link
from beamtide.messages.base import Message, Ok, Refused, Seconds
from beamtide.messages.topology import ComponentCard, Heartbeat, Hello, Topology, TopologyRequest, Unregistered
from beamtide.session import Session

NAMES = st.sampled_from(["sink", "fence"])
SOON = 30


def card_of(name: str, boot: str) -> ComponentCard:
    return ComponentCard(name=name, kind="k", address="tcp://a", host="h", pid=7, boot=boot)


@dataclass
class Component:
    session: Session
    done: float = 0.0

    def speaks(self, now: float) -> list[Message]:
        effects = self.session.tick(Seconds(now), "running", {"done": self.done}, "")
        return [effect.message for effect in effects if isinstance(effect, Send) and effect.peer == link("topology")]


class TopologyStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.boots = 0
        self.ids = 0
        self.machine = TopologyMachine()
        self.alive: dict[bytes, Component] = {}
        self.wire: list[tuple[bytes, Message]] = []
        self.watching: dict[int, tuple[int, float]] = {}
        self.seen: dict[int, list[tuple[object, ...]]] = {}
        """Version -> what a person saw then."""

    def tell(self, event: Event) -> list[Effect]:
        effects = [*self.machine.handle(event, Seconds(self.time)), *self.machine.handle(Tick(), Seconds(self.time))]
        self.machine.check()
        for effect in effects:
            if isinstance(effect, Send) and effect.peer == b"me":
                self.judge(effect.message, effect.reply_to)
        return effects

    def judge(self, answer: Message, question: int) -> None:
        after, deadline = self.watching.pop(question)
        assert isinstance(answer, Topology)
        assert answer.version > after or self.time >= deadline, "told too early that nothing changed"
        names = [report.card.name for report in answer.components]
        assert names == sorted(set(names)), "one report per name"
        for report in answer.components:
            assert report.state == "stopped" or (report.state == "lost") == (report.age > LOST_AFTER), report

    def exchange(self, peer: bytes, message: Message, deaf: bool = False) -> None:
        """A message reaches the manager, its answer the component."""
        self.ids += 1
        for effect in self.tell(Heard(peer, message, self.ids)):
            if isinstance(effect, Send) and effect.peer == peer and not deaf and peer in self.alive:
                self.alive[peer].session.heard(effect.message)

    @precondition(lambda self: self.boots < BOOTS)
    @rule(name=NAMES)
    def start(self, name: str) -> None:
        self.boots += 1
        boot = f"{name} {self.boots}"
        self.alive[boot.encode()] = Component(Session(card_of(name, boot)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), polite=st.booleans())
    def die(self, data: st.DataObject, polite: bool) -> None:
        peer = data.draw(st.sampled_from(sorted(self.alive)))
        effects = self.alive.pop(peer).session.farewell({})
        self.wire += [(peer, effect.message) for effect in effects if isinstance(effect, Send) and polite]

    @rule(seconds=st.sampled_from([0.5, 2.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        for peer, component in self.alive.items():
            component.done += 1
            self.wire += [(peer, message) for message in component.speaks(self.time)]
        self.tell(Tick())

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), fate=st.sampled_from(["arrive", "arrive", "arrive", "lost", "doubled", "deaf"]))
    def deliver(self, data: st.DataObject, fate: str) -> None:
        at = data.draw(st.integers(0, len(self.wire) - 1))
        letter = self.wire[at] if fate == "doubled" else self.wire.pop(at)
        if fate != "lost":
            self.exchange(*letter, deaf=fate == "deaf")

    @rule(seconds=st.integers(1, 10))
    def fine_weather(self, seconds: int) -> None:
        for _ in range(seconds):
            self.wait(1.0)
            while self.wire:
                self.exchange(*self.wire.pop(0))

    @rule()
    def restart(self) -> None:
        self.machine = TopologyMachine()
        self.watching.clear()
        self.seen.clear()

    @rule(back=st.integers(-1, 2), wait=st.sampled_from([0.0, 5.0]))
    def watch(self, back: int, wait: float) -> None:
        self.ids += 1
        after = self.version() - back
        self.ids += 1
        self.watching = {self.ids: (after, self.time + wait)}  # one question per peer
        self.tell(Heard(b"me", TopologyRequest(after=after, wait=wait), self.ids))

    @rule()
    def vanish(self) -> None:
        self.watching.clear()
        self.tell(Unreachable(b"me"))

    def version(self) -> int:
        return self.look().version

    def look(self) -> Topology:
        effects = self.machine.handle(Heard(b"probe", TopologyRequest(), 1), Seconds(self.time))
        (answer,) = [effect.message for effect in effects if isinstance(effect, Send) and effect.peer == b"probe"]
        assert isinstance(answer, Topology)
        return answer

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        version = self.version()
        for after, deadline in self.watching.values():
            assert version <= after, "something changed, and a watcher sleeps"
            assert self.time < deadline, "a watcher waits longer than he wanted"

    @invariant()
    def what_changes_has_a_new_version(self) -> None:
        topology = self.look()
        shown: list[tuple[object, ...]] = [(one.card, one.state, one.progress, one.why) for one in topology.components]
        assert self.seen.setdefault(topology.version, shown) == shown
        assert topology.version == max(self.seen), "the version went back"

    def teardown(self) -> None:
        """Once messages arrive again, soon and for good one of those who live is shown for each name."""
        self.fine_weather(SOON)
        for _ in range(SOON):
            self.fine_weather(1)
            reports = {report.card.name: report for report in self.look().components}
            living = {component.session.card.name for component in self.alive.values()}
            assert living <= reports.keys()
            for name, report in reports.items():
                assert report.state == "running" if name in living else report.state in ("lost", "stopped"), report
                if name in living:
                    done = self.alive[report.card.boot.encode()].done
                    assert done - 3 <= report.progress["done"] <= done, "old news is shown"


TestTopologyStory = TopologyStory.TestCase
TestTopologyStory.settings = settings(max_examples=40, stateful_step_count=40)


def say(machine: TopologyMachine, message: Message, now: float) -> Message:
    effects = machine.handle(Heard(b"x", message, 1), Seconds(now))
    return next(effect.message for effect in effects if isinstance(effect, Send))


def test_of_two_with_one_name_the_newer_stays_and_the_older_is_told_why() -> None:
    machine = TopologyMachine()
    assert say(machine, Hello(card=card_of("sink", "old")), 0.0) == Ok()
    assert say(machine, Hello(card=card_of("sink", "new")), 1.0) == Ok()
    for late in (Heartbeat(name="sink", boot="old"), Hello(card=card_of("sink", "old"))):
        answer = say(machine, late, 2.0)
        assert isinstance(answer, Refused)
        assert "stop one of the two" in answer.reason
    assert say(machine, Heartbeat(name="sink", boot="new"), 3.0) == Ok()


def test_the_older_takes_over_when_the_newer_is_lost() -> None:
    machine = TopologyMachine()
    say(machine, Hello(card=card_of("sink", "old")), 0.0)
    say(machine, Hello(card=card_of("sink", "new")), 1.0)
    later = 2.0 + LOST_AFTER
    machine.handle(Tick(), Seconds(later))
    assert machine.why() == "nothing was heard of sink"
    assert say(machine, Heartbeat(name="sink", boot="old"), later) == Unregistered(name="sink")
    assert say(machine, Hello(card=card_of("sink", "old")), later) == Ok()
    assert say(machine, Heartbeat(name="sink", boot="old"), later + 2) == Ok(), "it is the registered one now"
    assert isinstance(say(machine, Heartbeat(name="sink", boot="new"), later + 3), Refused)


def test_a_restarted_manager_knows_nobody() -> None:
    assert say(TopologyMachine(), Heartbeat(name="sink", boot="b"), 0.0) == Unregistered(name="sink")
