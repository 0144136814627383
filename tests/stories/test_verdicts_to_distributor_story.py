"""The pages of verdicts against a dictionary: nothing that is not confirmed is lost, over restarts and retries."""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beamline_side.cores.buffer.verdicts_to_distributor import (
    FULL,
    LARGEST_REPORT,
    LONG,
    TABLE,
    VerdictsToDistributor,
    verdicts_of,
)
from beamtide.errors import Broken
from beamtide.machine import Effect, Forget, Keep
from beamtide.messages.base import TaskId
from beamtide.messages.tasks import Closed
from tests.stories.shelf import Shelf

TASKS = st.integers(0, 40).map(lambda number: TaskId(f"scan/{number}"))


def written(shelf: Shelf, effects: list[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, Keep):
            shelf.keep(effect.table, effect.key, effect.body)
        elif isinstance(effect, Forget):
            del shelf.now[effect.table, effect.key]


class VerdictsStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.unconfirmed = VerdictsToDistributor(self.shelf)
        self.open: dict[TaskId, Closed] = {}
        self.told: dict[TaskId, int] = {}

    @rule(tasks=st.lists(TASKS, max_size=20, unique=True), reason=st.sampled_from(["", "x" * (LONG // 3)]))
    def close(self, tasks: list[TaskId], reason: str) -> None:
        """Each verdict of a task is of a higher generation than the one before."""
        for task in tasks:
            self.told[task] = self.told.get(task, -1) + 1
            self.open[task] = Closed(task=task, outcome="abandoned", reason=reason, generation=self.told[task])
            written(self.shelf, self.unconfirmed.add(self.open[task]))

    @rule(tasks=st.lists(TASKS, max_size=30, unique=True), late=st.integers(0, 1))
    def confirm(self, tasks: list[TaskId], late: int) -> None:
        """The distributor names verdicts, at times that of the generation before."""
        for task in tasks:
            generation = self.told.get(task, 0) - late
            written(self.shelf, self.unconfirmed.confirm(task, generation))
            if task in self.open and self.open[task].generation == generation:
                del self.open[task]

    @rule()
    def restart(self) -> None:
        """What is confirmed may come back, in its last generation or an older one; what is not confirmed stays."""
        self.unconfirmed = VerdictsToDistributor(self.shelf)
        there = {verdict.task: verdict for verdict in self.unconfirmed.report()}
        assert self.open.items() <= there.items(), "a verdict is lost"
        assert all(verdict.generation <= self.told[task] for task, verdict in there.items())
        self.open = there

    @invariant()
    def all_is_there(self) -> None:
        self.unconfirmed.check()
        assert len(self.unconfirmed) == len(self.open)
        assert {verdict.task: verdict for verdict in self.unconfirmed.report()} == self.open
        assert bool(self.open) == any(table == TABLE for table, _ in self.shelf.now), (
            "an empty page stays, or one with verdicts goes"
        )


TestVerdictsStory = VerdictsStory.TestCase
TestVerdictsStory.settings = settings(max_examples=60, stateful_step_count=40)


def test_verdicts_share_a_page_until_it_is_full_and_it_goes_as_one() -> None:
    shelf = Shelf()
    unconfirmed = VerdictsToDistributor(shelf)
    verdicts = [Closed(task=TaskId(f"scan/{number}"), outcome="result") for number in range(2 * FULL)]
    for verdict in verdicts:
        written(shelf, unconfirmed.add(verdict))
    assert [len(verdicts_of(body)) for _, body in shelf.rows(TABLE)] == [FULL, FULL]
    for verdict in verdicts[1:]:
        written(shelf, unconfirmed.confirm(verdict.task, 0))
    assert [key for key, _ in shelf.rows(TABLE)] == [f"{1:012d}"]
    written(shelf, unconfirmed.confirm(verdicts[0].task, 0))
    assert not shelf.now


def test_a_row_of_an_earlier_version_is_a_sentence() -> None:
    shelf = Shelf()
    shelf.keep(TABLE, "scan/1", msgspec.msgpack.encode(Closed(task=TaskId("scan/1"), outcome="result")))
    with pytest.raises(Broken, match=r"earlier version, scan/1: let that version end its scans"):
        VerdictsToDistributor(shelf)


def test_a_report_fits_into_a_message() -> None:
    unconfirmed = VerdictsToDistributor(Shelf())
    for number in range(300):
        unconfirmed.add(Closed(task=TaskId(f"scan/{number}"), outcome="abandoned", reason="€" * 1000))
    report = unconfirmed.report()
    assert 100 < len(report) < 300
    assert sum(len(verdict.reason.encode()) for verdict in report) <= LARGEST_REPORT
