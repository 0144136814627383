"""Random stories of sorter and sink together, over a cable that loses, doubles and delays, with crashes at any event: every
index comes out once and in order, the first verdict that was stored stays, and what was answered `Ok` is never lost."""

from collections.abc import Callable

import msgspec
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import CREDIT, Line, SorterMachine
from beamtide.machine import Arrays, Effect, Event, Heard, Keep, Machine, Send, link
from beamtide.messages import results as r
from beamtide.messages.base import Message, Ok, PipelineName, Refused, ScanId, TaskId
from beamtide.messages.tasks import Task
from tests.builders.tasks import make_product, make_task
from tests.stories.shelf import Shelf

PIPELINE = PipelineName("xrf")
CUTS = {"a": [0, 3, 4, 8, 12, 13, 17, 20, 24], "b": [0, 8, 16, 24]}
"""Two scans, cut into tasks in two ways."""
WHOLE = 24
HEADERS = (
    r.DatasetHeader(name="value", units="1"),
    r.DatasetHeader(name="sum", units="counts", per="scan", merge="sum"),
)
LINKS = {link("sink"): "sink", link("sorter"): "sorter"}
MACHINES: dict[str, Callable[[Shelf], Machine]] = {
    "sorter": lambda shelf: SorterMachine("xrf", shelf),
    "sink": SinkMachine,
}


def task_of(scan: str, start: int, stop: int) -> Task:
    return make_task(start, stop, scan=scan, pipeline=PIPELINE)


def product_of(scan: str) -> r.Product:
    return make_product(scan, PIPELINE)


def arrays_of(request: r.StoreRequest) -> Arrays:
    """Content that tells task and attempt."""
    if request.outcome != "result":
        return {}
    indexes = np.arange(request.task.start, request.task.stop)
    return {"value": indexes / 7 + 100.0 * request.attempt, "sum": np.array(indexes.sum() + request.attempt, np.int32)}


def verdict(scan: str, number: int, attempt: int, outcome: r.Outcome) -> r.StoreRequest:
    start, stop = CUTS[scan][number : number + 2]
    return r.StoreRequest(
        task=task_of(scan, start, stop),
        attempt=attempt,
        outcome=outcome,
        reason="" if outcome == "result" else f"{outcome} at attempt {attempt}",
        datasets=HEADERS if outcome == "result" else (),
    )


class SorterStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.ids = 0
        self.shelves = {name: Shelf() for name in MACHINES}
        self.machines = {name: MACHINES[name](self.shelves[name]) for name in MACHINES}
        self.wire: list[tuple[str, Heard]] = []
        self.first: dict[str, r.StoreRequest] = {}
        self.answered: set[str] = set()
        self.given_up: dict[int, TaskId] = {}
        """Questions of the buffer: which task was given up."""
        self.begun: dict[str, list[int]] = {"a": [], "b": []}
        self.marks = {"a": 0, "b": 0}
        self.complete = {"a": 0, "b": 0}
        self.in_sink: set[str] = set()

    # --- the processes -----------------------------------------------------------------------------------------------

    def restart(self, name: str) -> None:
        self.shelves[name].crash()
        self.machines[name] = MACHINES[name](self.shelves[name])
        self.machines[name].check()

    def tell(self, name: str, events: list[Event], mute: bool = False) -> list[Effect]:
        """One batch, committed; `mute`: the process dies between its commit and its answers."""
        effects = self.shelves[name].batch(self.machines[name], events, self.time)
        self.shelves[name].commit()
        self.note_committed(name, events, effects)
        self.machines[name].check()
        if mute:
            self.restart(name)
            return []
        for effect in effects:
            if isinstance(effect, Send) and effect.peer != b"stranger":
                self.post(name, effect)
        return effects

    def note_committed(self, name: str, events: list[Event], effects: list[Effect]) -> None:
        for event in events:
            if isinstance(event, Heard) and isinstance(event.message, r.StoreRequest) and event.peer == b"worker":
                self.first.setdefault(event.message.task.id, event.message)
        for effect in effects:
            if isinstance(effect, Keep) and effect.table == "result":
                assert effect.key not in self.in_sink, "the sink took an index twice"
                self.in_sink.add(effect.key)

    def post(self, sender: str, effect: Send) -> None:
        self.ids += 1
        to = LINKS.get(effect.peer, effect.peer.decode())
        peer = link(sender) if (to, sender) == ("sorter", "sink") else sender.encode()
        if isinstance(effect.message, r.Release):
            self.judge(effect.message.result, effect.arrays)
        self.wire.append((to, Heard(peer, effect.message, self.ids, effect.reply_to, effect.arrays)))

    def judge(self, result: r.StoreRequest, arrays: Arrays) -> None:
        """A release is what was stored first, and no index begins before the one below it did."""
        task, begun = result.task, self.begun[result.task.scan]
        if result.outcome == "abandoned" and task.stop <= self.mark(task.scan):
            assert task.id in self.given_up.values(), "nobody asked"
            return
        assert result == self.first[task.id], "another verdict than the first goes out"
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in arrays_of(result).items()
        }
        if task.start not in begun:
            assert task.start == (CUTS[task.scan][len(begun)]), "out of turn"
            begun.append(task.start)

    def say(self, message: Message, arrays: Arrays, peer: bytes = b"worker") -> None:
        self.ids += 1
        if isinstance(message, r.StoreRequest) and message.outcome == "abandoned":
            self.given_up[self.ids] = message.task.id
        self.wire.append(("sorter", Heard(peer, message, self.ids, 0, arrays)))

    def arrive(self, to: str, heard: list[Heard], mute: bool = False) -> None:
        if to in self.machines:
            self.tell(to, list(heard), mute)
            return
        for one in heard:
            assert isinstance(one.message, Ok | r.StoredBefore), one.message
            task = TaskId(one.message.note) if isinstance(one.message, Ok) else one.message.task
            self.answered.add(task)
            if one.reply_to in self.given_up:
                there = one.message.outcome if isinstance(one.message, r.StoredBefore) else "abandoned"
                assert there == self.first[task].outcome, "the buffer believes something else than what is visible"

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(
        scan=st.sampled_from("ab"),
        number=st.integers(0, 7),
        attempt=st.integers(1, 3),
        outcome=st.sampled_from(["result", "result", "result", "empty", "abandoned"]),
    )
    def store(self, scan: str, number: int, attempt: int, outcome: r.Outcome) -> None:
        request = verdict(scan, number % (len(CUTS[scan]) - 1), attempt, outcome)
        self.say(request, arrays_of(request))

    @precondition(lambda self: self.first)
    @rule(data=st.data())
    def store_across(self, data: st.DataObject) -> None:
        """A task of another cut is refused with a sentence, unless all of it was released already."""
        known = self.first[data.draw(st.sampled_from(sorted(self.first)))].task
        if known.stop + 1 > WHOLE:
            return
        other = r.StoreRequest(task=task_of(known.scan, known.start, known.stop + 1), attempt=1, outcome="empty")
        (answer,) = [
            effect.message
            for effect in self.tell("sorter", [Heard(b"stranger", other, 1)])
            if isinstance(effect, Send) and effect.peer == b"stranger"
        ]
        if known.stop + 1 <= self.marks[known.scan]:
            assert isinstance(answer, Ok)
        else:
            assert isinstance(answer, Refused)
            assert other.task.id in answer.reason

    @precondition(lambda self: self.wire)
    @rule(
        data=st.data(), fate=st.sampled_from(["arrive", "arrive", "arrive", "arrive", "lost", "lost", "doubled", "crash", "mute"])
    )
    def deliver(self, data: st.DataObject, fate: str) -> None:
        at = data.draw(st.integers(0, len(self.wire) - 1))
        to, heard = self.wire[at] if fate == "doubled" else self.wire.pop(at)
        if fate == "crash" and to in self.machines:
            self.shelves[to].batch(self.machines[to], [heard], self.time)
            self.restart(to)
        elif fate != "lost":
            self.arrive(to, [heard], mute=fate == "mute")

    @rule(
        to=st.sampled_from(["sorter", "sink"]),
        most=st.integers(1, 12),
        fate=st.sampled_from(["", "", "", "", "", "mute", "crash"]),
    )
    def flow(self, to: str, most: int, fate: str) -> None:
        """All that lies in front of one process comes in one batch."""
        batch = [heard for name, heard in self.wire if name == to][:most]
        self.wire = [(name, heard) for name, heard in self.wire if all(heard is not one for one in batch)]
        if fate == "crash":
            self.shelves[to].batch(self.machines[to], batch, self.time)
            self.restart(to)
        else:
            self.arrive(to, batch, mute=fate == "mute")

    @rule(to=st.sampled_from(["sorter", "sink"]))
    def outage(self, to: str) -> None:
        """The cable drops all that is on its way to one process."""
        self.wire = [letter for letter in self.wire if letter[0] != to]

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        for name in self.machines:
            self.tell(name, [])

    @invariant()
    def marks_only_rise(self) -> None:
        for scan in CUTS:
            mark = self.mark(scan)
            assert mark >= self.marks[scan], "the watermark went back"
            self.marks[scan] = mark
            complete = self.look(scan)
            assert complete >= max(self.complete[scan], mark), "forgotten by both"
            self.complete[scan] = complete
            under_way = [start for start in self.begun[scan] if start >= mark]
            assert len(under_way) <= CREDIT

    def mark(self, scan: str) -> int:
        line = self.shelves["sorter"].committed.get(("line", f"{scan}/xrf/d"))
        return msgspec.msgpack.decode(line, type=Line).watermark if line else 0

    def look(self, scan: str) -> int:
        ledger = self.ask_sink(r.ListRequest(scan=ScanId(scan)))[0]
        assert isinstance(ledger, r.Products)
        return ledger.products[0].complete if ledger.products else 0

    def ask_sink(self, message: Message) -> tuple[Message, Arrays]:
        effects = self.shelves["sink"].batch(self.machines["sink"], [Heard(b"me", message, 7)], self.time)
        (answer,) = [effect for effect in effects if isinstance(effect, Send) and effect.peer == b"me"]
        return answer.message, answer.arrays

    def teardown(self) -> None:
        """After a last outage the sun comes out: whatever is missing is stored, and all of it must come to the sink."""
        for scan, cuts in CUTS.items():
            for number in reversed(range(len(cuts) - 1)):
                request = verdict(scan, number, 9, "result")
                self.say(request, arrays_of(request))
        self.flow("sorter", len(self.wire), "")
        self.outage("sink")
        for _ in range(40):
            while self.wire:
                to, heard = self.wire.pop(0)
                self.arrive(to, [heard])
            self.time += 1.0
            for name in self.machines:
                self.tell(name, [])
            if not self.wire and {table for table, _ in self.shelves["sorter"].committed} == {"line"}:
                break
        self.compare()

    def compare(self) -> None:
        """The sink holds what was stored first, bit by bit; the sorter has nothing left but its watermarks."""
        while self.wire:
            self.arrive(self.wire[0][0], [self.wire.pop(0)[1]])
        assert self.answered <= self.first.keys()
        assert {table for table, _ in self.shelves["sorter"].committed} == {"line"}
        self.restart("sink")
        for scan, cuts in CUTS.items():
            answer, arrays = self.ask_sink(r.ResultsRequest(product=product_of(scan), start=0))
            assert isinstance(answer, r.Results)
            assert [result.task.start for result in answer.results] == cuts[:-1]
            assert list(answer.results) == [self.first[result.task.id] for result in answer.results]
            for position, result in enumerate(answer.results):
                for name, array in arrays_of(result).items():
                    assert arrays[f"{position}/{name}"].tobytes() == array.tobytes()


TestSorterStory = SorterStory.TestCase
TestSorterStory.settings = settings(max_examples=40, stateful_step_count=50)
