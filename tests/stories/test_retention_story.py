"""Random stories of a sink with little room: results go only when they stand in a file, and nothing else changes for anybody."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beamline_side.cores.sink import retention
from beamline_side.cores.sink.sink import SinkMachine
from beamtide.machine import Arrays, Event, Heard, Keep, Send, Tick
from beamtide.messages import results as r
from beamtide.messages.base import Message, Ok, Refused
from tests.builders.tasks import make_product, make_task
from tests.stories.shelf import Shelf

NAMES = ("a", "b", "c")
LENGTH, MOST = 3, 500
HEADER = r.DatasetHeader(name="x", units="1")
NAME = st.sampled_from(NAMES)


def product_of(name: str) -> r.Product:
    return make_product(name)


def request_of(name: str, number: int) -> r.StoreRequest:
    """Every fourth range is a hole."""
    task = make_task(number * LENGTH, number * LENGTH + LENGTH, scan=name)
    if number % 4 == 3:
        return r.StoreRequest(task=task, attempt=1, outcome="abandoned", reason="lost")
    return r.StoreRequest(task=task, attempt=1, outcome="result", datasets=(HEADER,))


def arrays_of(name: str, number: int) -> Arrays:
    return {} if number % 4 == 3 else {"x": np.arange(LENGTH) + 100 * NAMES.index(name) + LENGTH * number}


class FilingStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.small = mock.patch.object(retention, "PORTION", 1)
        self.small.start()
        self.shelf = Shelf()
        self.machine = SinkMachine(self.shelf, MOST)
        self.came = dict.fromkeys(NAMES, 0)
        self.versions: dict[str, int] = {}
        self.filed: list[str] = []
        """What stands in files as it is; what changed longest ago comes first."""
        self.order: dict[str, int] = {}
        self.gone: set[str] = set()

    def teardown(self) -> None:
        for _ in range(60):
            self.tell([])
        self.judge_gone()
        kept = self.machine.progress()["kept_bytes"]
        assert kept <= MOST or not self.filed, "there is no room, and something could go"
        rows = [key for table, key in self.shelf.committed if table in ("result", "payload", "forms")]
        assert not [key for key in rows if key.split("/")[0] in self.gone], "rows are left"
        self.small.stop()

    def tell(self, events: list[Event], crash: bool = False) -> list[Send]:
        effects = self.shelf.batch(self.machine, events, 0.0)
        if crash:
            return self.restart()
        self.shelf.commit()
        self.machine.check()
        self.judge_gone()
        return [one for one in effects if isinstance(one, Send)]

    def ask(self, message: Message, arrays: Arrays | None = None) -> Send:
        (answer,) = self.tell([Heard(b"me", message, 1, 0, arrays or {})])
        return answer

    def restart(self) -> list[Send]:
        self.shelf.crash()
        self.machine = SinkMachine(self.shelf, MOST)
        self.machine.check()
        self.judge_gone()
        return []

    def states(self) -> dict[str, r.ProductState]:
        effects = self.shelf.batch(self.machine, [Heard(b"you", r.ListRequest(), 2)], 0.0)
        self.shelf.commit()
        (answer,) = [one.message for one in effects if isinstance(one, Send) and one.peer == b"you"]
        assert isinstance(answer, r.Products)
        assert all(state.version <= answer.version for state in answer.products)
        return {state.product.scan: state for state in answer.products}

    def judge_gone(self) -> None:
        """Only what was filed goes, first what changed longest ago, and it never comes back."""
        gone = {name for name, state in self.states().items() if state.filed}
        assert gone >= self.gone
        fresh = gone - self.gone
        assert fresh == set(self.filed[: len(fresh)]), "something went out of turn"
        self.filed, self.gone = self.filed[len(fresh) :], gone

    @rule(name=NAME, crash=st.booleans())
    def one_comes(self, name: str, crash: bool) -> None:
        number = self.came[name]
        heard = Heard(b"sorter", r.Release(result=request_of(name, number)), 1, 0, arrays_of(name, number))
        if name in self.gone:
            (answer,) = self.tell([heard])
            assert isinstance(answer.message, Refused)
            return
        if not crash:
            self.filed = [one for one in self.filed if one != name]
            self.came[name] += 1
            self.versions[name] = max(self.versions.values(), default=0) + 1
        self.tell([heard], crash)

    @rule(name=NAME, old=st.booleans(), crash=st.booleans(), then=st.booleans())
    def file(self, name: str, old: bool, crash: bool, then: bool) -> None:
        state = self.states().get(name)
        if state is None:
            return
        if not crash and name not in self.gone:
            self.order[name] = state.version
            there = {one for one in self.filed if one != name} | (set() if old else {name})
            self.filed = sorted(there, key=self.order.__getitem__)
        said = self.tell([Heard(b"me", r.Filed(product=state.product, version=state.version - old), 1)], crash)
        assert crash or [one.message for one in said] == [Ok()]
        if then:
            self.restart()

    @rule(name=NAME)
    def repeat(self, name: str) -> None:
        for number in range(self.came[name]):
            effects = self.shelf.batch(self.machine, [Heard(b"me", r.Release(result=request_of(name, number)), 1)], 0.0)
            self.shelf.commit()
            (answer,) = [one.message for one in effects if isinstance(one, Send)]
            assert isinstance(answer, r.Released)
            assert not [one for one in effects if isinstance(one, Keep) and one.table in ("result", "payload")]
        self.judge_gone()

    @rule()
    def crash(self) -> None:
        self.restart()

    @invariant()
    def the_books_stay(self) -> None:
        states = self.states()
        assert set(states) == {name for name in NAMES if self.came[name]}
        order = sorted(states, key=lambda name: states[name].version)
        assert order == sorted(self.versions, key=self.versions.__getitem__), "another product is the newest now"
        for name, state in states.items():
            holes = tuple(
                r.Hole(start=one * LENGTH, stop=one * LENGTH + LENGTH, reason="lost") for one in range(3, self.came[name], 4)
            )
            results = self.came[name] - len(holes)
            assert (state.complete, state.holes, state.results) == (self.came[name] * LENGTH, holes, results)
            assert state.datasets == (HEADER,)

    @invariant()
    def what_is_not_gone_can_be_fetched(self) -> None:
        for name in (name for name in NAMES if self.came[name]):
            whole = r.FetchRequest(product=product_of(name), dataset="x", start=0, stop=self.came[name] * LENGTH)
            sent = self.ask(whole)
            if name in self.gone:
                assert isinstance(sent.message, Refused)
                assert "only in its result files" in sent.message.reason
                continue
            for number in range(self.came[name]):
                found = sent.arrays["data"][number * LENGTH :][:LENGTH]
                np.testing.assert_array_equal(found, arrays_of(name, number).get("x", np.zeros(LENGTH)))


TestFilingStory = FilingStory.TestCase
TestFilingStory.settings = settings(max_examples=40, stateful_step_count=40)


def test_it_says_that_there_is_too_much_and_nothing_may_go() -> None:
    shelf = Shelf()
    machine = SinkMachine(shelf, 400)
    for number in range(3):
        shelf.batch(machine, [Heard(b"s", r.Release(result=request_of("a", number)), 1, 0, arrays_of("a", number))], 0.0)
    assert "budgets.results" in machine.why()
    version = int(machine.progress()["results"])
    shelf.batch(machine, [Heard(b"w", r.Filed(product=product_of("a"), version=version), 2), Tick()], 0.0)
    assert machine.why() == ""
    assert machine.progress()["kept_bytes"] == 0


def test_after_a_restart_it_goes_on_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PORTION", 1)
    shelf = Shelf()
    machine = SinkMachine(shelf, 400)
    for number in range(3):
        shelf.batch(machine, [Heard(b"s", r.Release(result=request_of("a", number)), 1, 0, arrays_of("a", number))], 0.0)
    shelf.batch(machine, [Heard(b"w", r.Filed(product=product_of("a"), version=3), 2)], 0.0)
    shelf.commit()
    assert len([key for table, key in shelf.committed if table == "payload"]) == 2
    machine = SinkMachine(shelf, 400)
    shelf.batch(machine, [Tick(), Tick()], 0.0)
    assert {table for table, _ in shelf.now} == {"state"}
