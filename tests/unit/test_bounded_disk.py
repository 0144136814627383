"""Nothing on disk grows with the number of tasks that are over: what is left of them is a few bytes for thousands of indexes."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.distributor.finished_ranges import BLOCK, FinishedRanges, merged
from beamline_side.cores.sorter.sorter import SINK, SorterMachine
from beamtide.machine import Heard, Keep, Send
from beamtide.messages.base import Message, PipelineName, TaskId
from beamtide.messages.results import Released, StoreRequest
from beamtide.messages.tasks import Closed, PullRequest, StatusRequest, SubmitRequest, Task, TaskStatus
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf

RANGES = st.lists(
    st.tuples(st.integers(0, 3 * BLOCK), st.integers(1, BLOCK + 9)).map(lambda one: (one[0], sum(one))), max_size=12
)
TASKS = 3 * BLOCK + 100


@settings(max_examples=60)
@given(batches=st.lists(RANGES, max_size=5), asked=RANGES)
def test_covered_is_what_a_set_would_say(batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]) -> None:
    shelf, there = Shelf(), set[int]()
    finished = FinishedRanges(shelf)
    for batch in batches:
        for effect in finished.add(("a/b", *one) for one in batch):
            assert isinstance(effect, Keep)
            shelf.keep(effect.table, effect.key, effect.body)
        there |= {index for one in batch for index in range(*one)}
    for start, stop in asked:
        assert finished.holds("a/b", start, stop) == (set(range(start, stop)) <= there)
        assert not finished.holds("a/c", start, stop)


def test_ranges_that_touch_are_one() -> None:
    assert merged([(4, 6), (0, 2), (2, 3), (5, 9)]) == [(0, 3), (4, 9)]


def task_of(number: int) -> Task:
    return make_task(number, id=f"s/p/{number}")


def rows_of(shelf: Shelf) -> dict[str, int]:
    tables = [table for table, _ in shelf.now]
    return {table: tables.count(table) for table in sorted(set(tables))}


def test_the_distributor_keeps_a_few_rows_of_tasks_that_are_over() -> None:
    shelf = Shelf()
    machine = DistributorMachine({"p": "m"}, shelf)

    def ask(message: Message) -> list[Message]:
        effects = shelf.batch(machine, [Heard(b"x", message, 1)], 0.0)
        return [effect.message for effect in effects if isinstance(effect, Send)]

    order = list(range(TASKS))
    random.Random(1).shuffle(order)
    for at in range(0, TASKS, 1000):
        ask(SubmitRequest(tasks=tuple(task_of(number) for number in range(at, min(TASKS, at + 1000)))))
    for at in range(0, TASKS, 1000):
        closed = tuple(Closed(task=TaskId(f"s/p/{number}"), outcome="result") for number in order[at : at + 1000])
        ask(PullRequest(pipeline=PipelineName("p"), after=TASKS, credit=0, closed=closed))
    assert rows_of(shelf) == {"claimed": 4, "covered": 4, "cursor": 1, "tally": 1, "version": 1}
    assert sum(len(body) for body in shelf.now.values()) < 300
    ask(SubmitRequest(tasks=(task_of(7), task_of(TASKS - 1))))
    ask(
        PullRequest(
            pipeline=PipelineName("p"), after=TASKS, credit=0, closed=(Closed(task=TaskId("s/p/7"), outcome="abandoned"),)
        )
    )
    machine = DistributorMachine({"p": "m"}, shelf)
    (status,) = (one for one in ask(StatusRequest()) if isinstance(one, TaskStatus))
    assert [(one.submitted, one.results, one.abandoned) for one in status.tallies] == [(TASKS, TASKS, 0)]


def test_the_sorter_keeps_one_row_of_a_product_that_is_done() -> None:
    shelf = Shelf()
    machine = SorterMachine("p", shelf)
    for number in range(200):
        shelf.batch(machine, [Heard(b"w", StoreRequest(task=task_of(number), attempt=1, outcome="empty"), 1)], 0.0)
        shelf.batch(machine, [Heard(SINK, Released(task=TaskId(f"s/p/{number}")))], 0.0)
    assert rows_of(shelf) == {"line": 1}
