"""A worker stores its result and dies before it can say so; its task is given up. What does the buffer hear?"""

import msgspec

from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import AGAIN_AFTER, SINK, SorterMachine
from beamtide.machine import Heard, Send
from beamtide.messages.base import Message, Ok, TaskId
from beamtide.messages.results import Released, StoredBefore, StoreRequest
from tests.stories.shelf import Shelf
from tests.unit.test_release import array_of, request_of


def verdict(number: int, generation: int, **more: object) -> StoreRequest:
    """What is said of the task of one index."""
    request = request_of(number, **more)
    return msgspec.structs.replace(request, task=msgspec.structs.replace(request.task, generation=generation))


class Pair:
    """A sorter and a sink, and what lies between them."""

    def __init__(self) -> None:
        self.shelves = {"sorter": Shelf(), "sink": Shelf()}
        self.machines = {"sorter": SorterMachine("p", self.shelves["sorter"]), "sink": SinkMachine(self.shelves["sink"])}
        self.to_sink: list[Send] = []
        self.time = 0.0

    def hear(self, *heard: Heard) -> list[Message]:
        """Let the sorter hear something; return what it tells others than the sink."""
        effects = self.shelves["sorter"].batch(self.machines["sorter"], heard, self.time)
        self.shelves["sorter"].commit()
        sends = [one for one in effects if isinstance(one, Send)]
        self.to_sink += [one for one in sends if one.peer == SINK]
        return [one.message for one in sends if one.peer != SINK]

    def store(self, number: int, generation: int = 0) -> None:
        request = verdict(number, generation)
        assert self.hear(Heard(b"worker", request, 1, arrays=array_of(number))) == [Ok(note=request.task.id)]

    def give_up(self, number: int, generation: int = 0) -> list[Message]:
        request = verdict(number, generation, outcome="abandoned", reason="lost", datasets=())
        return self.hear(Heard(b"buffer", request, 2))

    def answers(self) -> list[Released]:
        """Let the sink hear all that is on its way; return what it says."""
        heard = [Heard(b"sorter", one.message, 3, arrays=one.arrays) for one in self.to_sink]
        self.to_sink.clear()
        effects = self.shelves["sink"].batch(self.machines["sink"], heard, 0.0)
        self.shelves["sink"].commit()
        return [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, Released)]

    def settle(self) -> list[Message]:
        """Let all arrive; return what the buffer hears."""
        said: list[Message] = []
        while self.to_sink:
            said += self.hear(*(Heard(SINK, one) for one in self.answers()))
        return said


STORED = StoredBefore(task=TaskId("s/p/0"), outcome="result")
LOST = Ok(note="s/p/0")


def test_a_result_that_is_visible_is_the_verdict() -> None:
    pair = Pair()
    pair.store(0)
    pair.settle()
    assert pair.give_up(0) == []
    assert pair.settle() == [STORED]
    assert "correction" not in {table for table, _ in pair.shelves["sorter"].now}


def test_so_is_one_that_waits_for_others() -> None:
    pair = Pair()
    pair.store(1)
    assert pair.give_up(1) == [msgspec.structs.replace(STORED, task=TaskId("s/p/1"))]


def test_a_hole_stays_one() -> None:
    pair = Pair()
    assert pair.give_up(0) == [LOST]
    assert pair.give_up(0) == [LOST]
    pair.settle()
    assert pair.give_up(0) == []
    assert pair.settle() == [LOST]


def test_what_the_sink_said_of_an_older_generation_counts_no_more() -> None:
    pair = Pair()
    pair.give_up(0)
    (old,) = pair.answers()
    pair.hear(Heard(SINK, old))
    pair.store(0, generation=1)
    pair.settle()
    pair.give_up(0, generation=1)
    assert pair.hear(Heard(SINK, old)) == []
    assert pair.settle() == [STORED]


def test_a_hole_that_waits_says_nothing_of_a_retry() -> None:
    pair = Pair()
    assert pair.give_up(1) == [Ok(note="s/p/1")]
    assert pair.give_up(1, generation=1) == [], "its worker may still store something, which would count"
    pair.store(1, generation=1)
    pair.store(0)
    pair.settle()
    pair.give_up(1, generation=1)
    assert pair.settle() == [msgspec.structs.replace(STORED, task=TaskId("s/p/1"))]


def test_a_correction_that_may_come_too_late_says_nothing() -> None:
    pair = Pair()
    pair.give_up(0)
    pair.settle()
    pair.give_up(0, generation=1)
    assert [one.outcome for one in pair.answers()] == ["abandoned"], "and this answer is lost"
    pair.store(0, generation=1)
    assert pair.give_up(0, generation=1) == []
    assert pair.settle() == [LOST]


def test_a_retry_that_is_given_up_does_not_overtake_its_result() -> None:
    pair = Pair()
    pair.give_up(0)
    pair.settle()
    pair.store(0, generation=1)
    pair.to_sink.clear()  # lost
    assert pair.give_up(0, generation=1) == []
    pair.settle()
    pair.time += 2 * AGAIN_AFTER
    pair.hear()
    assert [one.outcome for one in pair.answers()] == ["result"]
