"""From sorter to sink: where a payload lies, or the payload; answers in any order; a disk without room."""

import numpy as np
import pytest

from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import AGAIN_AFTER, CREDIT, SINK, SorterMachine
from beamtide import codec
from beamtide.machine import Effect, Heard, Keep, Send, Tick
from beamtide.messages.base import Handle, Message, Ok, Refused, TaskId, Unsupported
from beamtide.messages.results import (
    DatasetHeader,
    NotHeld,
    Release,
    Released,
    ReleaseHeld,
    ResultsRequest,
    StoreRequest,
)
from tests.builders.tasks import make_product, make_task
from tests.stories.shelf import Shelf

PRODUCT = make_product()


def request_of(number: int, **more: object) -> StoreRequest:
    task = make_task(number, id=f"s/p/{number}")
    header = (DatasetHeader(name="x", units="1"),)
    return StoreRequest(task=task, attempt=1, **({"outcome": "result", "datasets": header} | more))  # type: ignore[arg-type]


def array_of(number: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return {"x": np.full((1, 50), float(number))}


class Pair:
    """A sorter and a sink, on one host or on two."""

    def __init__(self, *, heavy: float = 0, one_host: bool = True) -> None:
        host: dict[Handle, bytes] | None = {} if one_host else None
        self.sorted, self.kept = Shelf("sorter.p", host, heavy), Shelf("sink", host)
        self.sorter, self.sink = SorterMachine("p", self.sorted), SinkMachine(self.kept)

    def store(self, *numbers: int, now: float = 0.0) -> list[Send]:
        """Store results; return what goes to the sink."""
        heard = [Heard(b"w", request_of(number), number + 1, arrays=array_of(number)) for number in numbers]
        return self.to_sink(self.sorted.batch(self.sorter, heard, now))

    def answers(self, *messages: Message, now: float = 0.0) -> list[Send]:
        """Let the sink say something; return what the sorter sends it then."""
        return self.to_sink(self.sorted.batch(self.sorter, [Heard(SINK, message) for message in messages], now))

    def to_sink(self, effects: list[Effect]) -> list[Send]:
        self.sorted.commit()
        self.sorter.check()
        return [effect for effect in effects if isinstance(effect, Send) and effect.peer == SINK]

    def deliver(self, sends: list[Send]) -> tuple[list[Message], list[Effect]]:
        """Let the sink hear messages; return its answers, and all that it does."""
        effects = self.kept.batch(self.sink, [Heard(b"sorter", one.message, 1, arrays=one.arrays) for one in sends], 0.0)
        self.kept.commit()
        return [effect.message for effect in effects if isinstance(effect, Send)], effects


def test_on_one_host_only_a_handle_travels_and_is_kept() -> None:
    pair = Pair()
    (sent,) = pair.store(0)
    assert isinstance(sent.message, ReleaseHeld)
    assert not sent.arrays
    said, effects = pair.deliver([sent])
    assert said == [Released(task=TaskId("s/p/0"), outcome="result")]
    assert [effect.body for effect in effects if isinstance(effect, Keep) and effect.table == "payload"] == [sent.message.payload]
    pair.answers(*said)
    assert not pair.sorted.now.keys() & {("payload", "s/p/0"), ("place", "s/p/0")}
    (answer,) = (
        e
        for e in pair.kept.batch(pair.sink, [Heard(b"c", ResultsRequest(product=PRODUCT, start=0), 2)], 0.0)
        if isinstance(e, Send)
    )
    assert np.array_equal(answer.arrays["0/x"], array_of(0)["x"])
    again, _ = pair.deliver([sent])
    assert again == [Released(task=TaskId("s/p/0"), outcome="result")], (
        "a payload that is gone at the sorter is not looked for when it is known"
    )


@pytest.mark.parametrize("says", [NotHeld(task=TaskId("s/p/0")), Unsupported(kind="ReleaseHeld")])
def test_a_sink_on_another_host_or_an_older_one_gets_everything_whole(says: Message) -> None:
    pair = Pair(one_host=False)
    sends = pair.store(0, 1)
    said, _ = pair.deliver(sends)
    assert all(isinstance(message, NotHeld) for message in said)
    whole = pair.answers(says)
    assert [type(one.message) for one in whole] == [Release, Release], "at once, without waiting"
    said, _ = pair.deliver(whole)
    assert [type(message) for message in said] == [Released, Released]
    pair.answers(*said)
    assert [type(one.message) for one in pair.store(2)] == [Release], "it is not asked again"


def test_a_payload_that_is_no_result_is_refused_by_the_sink() -> None:
    pair = Pair()
    (sent,) = pair.store(0)
    assert isinstance(sent.message, ReleaseHeld)
    for block in (b"".join(codec.pack(Ok())), b"nonsense"):
        pair.sorted.host[sent.message.payload] = block
        said, effects = pair.deliver([sent])
        assert isinstance(said[0], Refused | NotHeld)
        assert not any(isinstance(effect, Keep) for effect in effects)


def test_answers_that_come_early_are_not_waited_for_again() -> None:
    """One release was lost: it is repeated as soon as a later one is answered, and nothing else is."""
    pair = Pair()
    assert len(pair.store(*range(3 * CREDIT))) == CREDIT
    released = [Released(task=TaskId(f"s/p/{number}")) for number in range(3 * CREDIT)]
    (at_once,) = pair.answers(*released[1:CREDIT])
    (again,) = pair.to_sink(pair.sorted.batch(pair.sorter, [Tick()], AGAIN_AFTER))
    for one in (at_once, again):
        assert isinstance(one.message, ReleaseHeld)
        assert one.message.start == 0
    following = pair.answers(released[0], now=AGAIN_AFTER)
    assert [one.message.start for one in following] == [*range(CREDIT, 2 * CREDIT)]  # type: ignore[attr-defined]
    assert pair.sorter.progress()["released"] == CREDIT


def test_without_room_new_results_are_asked_for_later_and_verdicts_are_kept() -> None:
    pair = Pair()
    pair.sorted.free = -1
    said = pair.sorted.batch(pair.sorter, [Heard(b"w", request_of(0), 1, arrays=array_of(0))], 0.0)
    (answer,) = (effect.message for effect in said if isinstance(effect, Send))
    assert isinstance(answer, Refused)
    assert answer.retry_after > 0
    assert not any(isinstance(effect, Keep) for effect in said)
    hole = request_of(0, outcome="abandoned", reason="lost", datasets=())
    said = pair.sorted.batch(pair.sorter, [Heard(b"buffer", hole, 2)], 0.0)
    assert any(isinstance(effect, Send) and isinstance(effect.message, Ok) for effect in said)
