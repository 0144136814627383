"""Random stories of retried tasks between sorter and sink: whatever is lost, doubled or late, a result fills its hole and stays.

A task may be given up although its worker has stored a result: who gave it up hears `StoredBefore` of a result that is visible in
the end, and `Ok` only if no result of this generation or an older one ever is.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import SorterMachine
from beamtide.machine import Effect, Heard, Send, link
from beamtide.messages import results as r
from beamtide.messages.base import Ok
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf

RANGES, LENGTH = 4, 3
HEADER = r.DatasetHeader(name="value", units="1")
MACHINES = {"sorter": lambda shelf: SorterMachine("xrf", shelf), "sink": SinkMachine}
TO = {link("sink"): "sink", b"sorter": "sorter"}


def verdict(number: int, generation: int, outcome: r.Outcome) -> r.StoreRequest:
    task = make_task(number * LENGTH, number * LENGTH + LENGTH, pipeline="xrf", generation=generation)
    if outcome == "abandoned":
        return r.StoreRequest(task=task, attempt=generation + 1, outcome="abandoned", reason=f"failed {generation}")
    return r.StoreRequest(task=task, attempt=generation + 1, outcome="result", datasets=(HEADER,))


class CorrectionStory(RuleBasedStateMachine):
    @initialize(last=st.lists(st.integers(0, 3), min_size=RANGES, max_size=RANGES))
    def begin(self, last: list[int]) -> None:
        self.last, self.time = last, 0.0
        self.shelves = {name: Shelf() for name in MACHINES}
        self.machines = {name: make(self.shelves[name]) for name, make in MACHINES.items()}
        self.wire: list[tuple[str, Heard]] = []
        self.seen: r.ProductState | None = None
        self.ids = 100
        self.asked: dict[int, tuple[int, int]] = {}
        self.told: dict[tuple[int, int], set[type]] = {}

    def restart(self, name: str) -> None:
        self.shelves[name].crash()
        self.machines[name] = MACHINES[name](self.shelves[name])

    def tell(self, name: str, heard: list[Heard]) -> list[Effect]:
        effects = self.shelves[name].batch(self.machines[name], heard, self.time)
        self.shelves[name].commit()
        self.machines[name].check()
        for effect in effects:
            if isinstance(effect, Send) and effect.peer == b"buffer":
                self.told.setdefault(self.asked[effect.reply_to], set()).add(type(effect.message))
            if isinstance(effect, Send) and effect.peer in TO:
                back = link("sink") if name == "sink" else name.encode()
                self.wire.append((TO[effect.peer], Heard(back, effect.message, 1, effect.reply_to, effect.arrays)))
        return effects

    def store(self, number: int, generation: int) -> None:
        request = verdict(number, generation, "result")
        arrays = {"value": np.arange(LENGTH) + request.task.start}
        effects = self.tell("sorter", [Heard(b"worker", request, 5, 0, arrays)])
        assert [one.message for one in effects if isinstance(one, Send) and one.peer == b"worker"] == [Ok(note=request.task.id)]

    def give_up(self, number: int, generation: int) -> None:
        self.ids += 1
        self.asked[self.ids] = number, generation
        self.tell("sorter", [Heard(b"buffer", verdict(number, generation, "abandoned"), self.ids)])

    @rule(number=st.integers(0, RANGES - 1), generation=st.integers(0, 3), late=st.sampled_from([False, False, True]))
    def verdict_comes(self, number: int, generation: int, late: bool) -> None:
        """All generations of a range but the last one are given up, though some of their workers had stored something."""
        generation = min(generation, self.last[number])
        if late or generation == self.last[number]:
            self.store(number, generation)
        else:
            self.give_up(number, generation)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), fate=st.sampled_from(["arrive", "arrive", "arrive", "lost", "doubled", "crash"]))
    def deliver(self, data: st.DataObject, fate: str) -> None:
        at = data.draw(st.integers(0, len(self.wire) - 1))
        to, heard = self.wire[at] if fate == "doubled" else self.wire.pop(at)
        if fate == "crash":
            self.shelves[to].batch(self.machines[to], [heard], self.time)
            self.restart(to)
        elif fate != "lost":
            self.tell(to, [heard])

    @rule(seconds=st.sampled_from([0.1, 4.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        for name in self.machines:
            self.tell(name, [])

    @rule(name=st.sampled_from(["sorter", "sink"]))
    def crash(self, name: str) -> None:
        self.restart(name)

    @invariant()
    def what_is_seen_only_gets_better(self) -> None:
        state = self.look()
        if state is None or self.seen is None:
            self.seen = state or self.seen
            return
        before, self.seen = self.seen, state
        assert state.version >= before.version
        assert state.corrections >= before.corrections
        assert state.results >= before.results
        assert state.complete >= before.complete
        assert state == before or state.version > before.version, "a change that nobody hears of"

    def look(self) -> r.ProductState | None:
        effects = self.shelves["sink"].batch(self.machines["sink"], [Heard(b"me", r.ListRequest(), 7)], self.time)
        (answer,) = [one.message for one in effects if isinstance(one, Send) and one.peer == b"me"]
        assert isinstance(answer, r.Products)
        return answer.products[0] if answer.products else None

    def teardown(self) -> None:
        """Every verdict comes until it is answered, the oldest last; then all that is on its way arrives."""
        if not hasattr(self, "last"):
            return
        for number in range(RANGES):
            self.store(number, self.last[number])
        for turn in range(60):
            for number in range(RANGES):
                for generation in range(self.last[number] - 1, -1, -1):
                    if turn < 50 and (turn == 0 or (number, generation) not in self.told):
                        self.give_up(number, generation)
            while self.wire:
                to, heard = self.wire.pop(0)
                self.tell(to, [heard])
            self.time += 4.0
            for name in self.machines:
                self.tell(name, [])
        assert not self.wire
        assert {table for table, _ in self.shelves["sorter"].committed} == {"line"}, "something never reached the sink"
        for _ in range(2):
            state = self.look()
            assert state is not None
            assert (state.results, state.holes, state.complete) == (RANGES, (), RANGES * LENGTH)
            assert state.corrections <= sum(self.last)
            product = state.product
            request = r.FetchRequest(product=product, dataset="value", start=0, stop=RANGES * LENGTH)
            (sent,) = [
                one
                for one in self.shelves["sink"].batch(self.machines["sink"], [Heard(b"me", request, 8)], self.time)
                if isinstance(one, Send)
            ]
            np.testing.assert_array_equal(sent.arrays["data"], np.arange(RANGES * LENGTH))
            self.restart("sink")
        self.judge_answers(product)

    def judge_answers(self, product: r.Product) -> None:
        assert self.told.keys() >= {(number, one) for number in range(RANGES) for one in range(self.last[number])}
        request = r.ResultsRequest(product=product, start=0)
        effects = self.shelves["sink"].batch(self.machines["sink"], [Heard(b"me", request, 9)], self.time)
        (answer,) = [one.message for one in effects if isinstance(one, Send) and one.peer == b"me"]
        assert isinstance(answer, r.Results)
        visible = {one.task.start // LENGTH: one.task.generation for one in answer.results}
        for (number, generation), said in self.told.items():
            assert said <= {Ok, r.StoredBefore}
            if Ok in said:
                assert visible[number] > generation, f"range {number}: given up in generation {generation}, and visible"


TestCorrectionStory = CorrectionStory.TestCase
TestCorrectionStory.settings = settings(max_examples=40, stateful_step_count=40)
