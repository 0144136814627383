"""Random stories of the backlog against a plain list: whatever comes, goes and is cancelled, over restarts, the order holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.buffer.backlog import CANCELLED, Backlog
from beamline_side.cores.buffer.buffer import BufferMachine
from beamline_side.cores.buffer.lease_table import LeaseTable
from beamline_side.cores.buffer.open_task import TABLE, Grant, OpenTask, Verdict, open_task_of
from beamline_side.cores.buffer.orderings import ORDERINGS
from beamtide.config.models import LeaseConfig
from beamtide.machine import Effect, Forget, Keep
from beamtide.messages.base import ScanId, Seconds, TaskId
from beamtide.messages.tasks import Task
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf

ORDERS = ("fifo", "lifo", "priority")


def task_of(number: int, priority: int = 0, scan: str = "a") -> Task:
    return make_task(number, scan=scan, id=f"{scan}/{number}", priority=priority)


class Story:
    """A backlog, the lease table behind it, their disk, and the list that they must agree with."""

    def __init__(self, order: str) -> None:
        self.order, self.shelf, self.now = order, Shelf(), 0.0
        self.open: dict[TaskId, tuple[tuple[int, int], int]] = {}
        self.ended: set[TaskId] = set()
        self.begin()

    def begin(self) -> None:
        """Start from what is on disk."""
        ordering = ORDERINGS[self.order]
        self.backlog, self.table = Backlog(ordering, self.shelf), LeaseTable(20.0, 5, 5, ordering)
        for _, body in self.shelf.rows(TABLE):
            open_task = open_task_of(body)
            (self.table if open_task.attempt else self.backlog).restore(open_task)
        self.backlog.begin(Seconds(self.now))
        self.table.expire(Seconds(self.now))

    def keep(self, changes: list[Effect]) -> None:
        for change in changes:
            if isinstance(change, Keep):
                self.shelf.keep(change.table, change.key, change.body)
            elif isinstance(change, Forget):
                self.shelf.now.pop((change.table, change.key), None)
            elif isinstance(change, Verdict):
                self.ended.add(change.task.id)

    def add(self, task: Task, seq: int) -> None:
        self.keep(self.backlog.add(OpenTask(task, seq), Seconds(self.now)))
        self.open[task.id] = (ORDERINGS[self.order](task, seq), seq)

    def lease(self, worker: str) -> TaskId | None:
        changes = self.table.lease(worker, Seconds(self.now), open_task=self.backlog.take(self.table.first()))
        self.keep([change for change in changes if not isinstance(change, Grant)])
        return next((change.task.id for change in changes if isinstance(change, Grant)), None)


@settings(max_examples=60)
@given(data=st.data(), order=st.sampled_from(ORDERS))
def test_the_next_is_the_first_of_all_that_are_open(data: st.DataObject, order: str) -> None:
    story, seq = Story(order), 0
    for step in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["add", "add", "lease", "lease", "cancel", "restart", "end"])):
            case "add":
                for _ in range(data.draw(st.integers(1, 30))):
                    seq += 1
                    story.add(task_of(seq, data.draw(st.integers(-2, 2)), data.draw(st.sampled_from("ab"))), seq)
            case "lease":
                expected = min(story.open, key=lambda name: story.open[name][0], default=None)
                assert story.lease(f"w{step}") == expected
                story.open.pop(expected or TaskId(""), None)
            case "cancel":
                scan, before = data.draw(st.sampled_from("ab")), seq + 1 - data.draw(st.integers(0, 20))
                story.keep(story.backlog.cancel(ScanId(scan), before, "no"))
                gone = [name for name, (_, at) in story.open.items() if name.startswith(scan) and at < before]
                for name in gone:
                    del story.open[name]
            case "restart":
                story.begin()
            case "end":
                story.keep(story.backlog.end_doomed())
        assert len(story.backlog) == len(story.open)
        story.backlog.check()
    while story.backlog.ending or story.shelf.now.keys() & {(CANCELLED, "a"), (CANCELLED, "b")}:
        story.keep(story.backlog.end_doomed())
    assert not story.ended & story.open.keys(), "a task that was not cancelled has ended"
    left = {key for table, key in story.shelf.now if table == TABLE and not open_task_of(story.shelf.now[table, key]).attempt}
    assert left == story.open.keys(), "a cancelled task is still there, or an open one is not"


@pytest.mark.parametrize("order", ORDERS)
def test_a_task_that_comes_back_is_first_and_one_that_rested_in_its_place(order: str) -> None:
    story = Story(order)
    for seq in range(1, 6):
        story.add(task_of(seq, priority=seq % 2), seq)
    first = story.lease("w")
    assert first is not None
    second = story.lease("v")
    story.keep(story.table.failed(first, 1, "handback", "leaves", Seconds(0.0)) or [])
    assert story.lease("u") == first, "handed back"
    story.keep(story.table.failed(first, 2, "fault", "raised", Seconds(0.0)) or [])
    story.table.expire(Seconds(1.5))
    third = story.lease("t")
    assert third == first if order != "priority" else third in (first, second), "its key is the lowest of all"


def test_the_whole_queue_is_in_order_and_not_only_what_fits_in_memory() -> None:
    """Priorities of tasks far behind the thousandth count, and bodies come from the disk."""
    story = Story("priority")
    for seq in range(1, 5001):
        story.add(task_of(seq, priority=seq // 1000), seq)
    assert [story.lease(f"w{n}") for n in range(2)] == ["a/5000", "a/4000"]


def test_a_buffer_takes_in_all_if_it_does_not_hand_out_in_the_order_of_arrival() -> None:
    for order in ORDERS:
        config = make_pipeline("p", buffer={"order": order})
        machine = BufferMachine(config, LeaseConfig(), Shelf(), most=5000)
        assert machine._intake.most == (1000 if order == "fifo" else 5000)
