"""Budgets of bytes: what a sorter and a distributor take, when they say "later", and that the row goes on all the same."""

from functools import partial

import numpy as np

from beamline_side.cores.distributor.distributor import ROW, DistributorMachine
from beamline_side.cores.sorter.byte_budget import PROMISE, ByteBudget
from beamline_side.cores.sorter.sorter import CREDIT, SINK, SorterMachine
from beamtide.machine import Event, Heard, Keep, Send, Tick
from beamtide.messages.base import Message, Ok, PipelineName, Refused, Seconds
from beamtide.messages.results import DatasetHeader, Release, Released, RoomRequest, StoreRequest
from beamtide.messages.scaling import GaugeRequest, SorterGauge
from beamtide.messages.tasks import PullRequest, SubmitRequest
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf

MIB = 1 << 20
task_of = partial(make_task, pipeline="xrf", modality="xrf")


def tell(machine: SorterMachine | DistributorMachine, shelf: Shelf, event: Event, now: float = 0.0) -> list[Message]:
    """Return what is sent, after a tick."""
    sent = []
    for one in (event, Tick()):
        for effect in machine.handle(one, Seconds(now)):
            if isinstance(effect, Keep):
                shelf.keep(effect.table, effect.key, effect.body)
            elif isinstance(effect, Send):
                sent.append(effect.message)
        machine.check()
    return sent


def store(machine: SorterMachine, shelf: Shelf, start: int, size: int = MIB) -> Message:
    request = StoreRequest(task=task_of(start), attempt=1, outcome="result", datasets=(DatasetHeader(name="a", units=""),))
    return tell(machine, shelf, Heard(b"worker", request, 1, 0, {"a": np.zeros((1, size), np.uint8)}))[0]


def test_results_behind_a_gap_leave_room_for_those_before_it() -> None:
    shelf = Shelf()
    machine = SorterMachine("xrf", shelf, ByteBudget(64 * MIB, 10 * MIB))
    answers = [store(machine, shelf, start) for start in range(5, 20)]
    assert [type(answer) for answer in answers] == [Ok] * 8 + [Refused] * 7, "80 % of ten"
    refused = answers[-1]
    assert isinstance(refused, Refused)
    assert refused.retry_after > 0, "it will be taken later"
    assert "8 MiB of results wait for the sink" in refused.reason
    assert isinstance(store(machine, shelf, 0), Ok), "the next in line is always taken"
    assert isinstance(store(machine, shelf, 1), Refused), "but not without end: 95 % are used"
    assert tell(machine, shelf, Heard(SINK, Released(task=task_of(0).id))) == []
    assert isinstance(store(machine, shelf, 1), Ok), "what can be released at once is taken, so the row goes on"
    assert machine.progress()["waiting_bytes"] == 9 * MIB
    assert "workers wait with more" in SorterMachine("xrf", shelf, ByteBudget(64 * MIB, 10 * MIB)).room.why(), (
        "also over a restart"
    )


def test_the_gauge_says_how_much_waits_and_why_there_is_no_room() -> None:
    def gauge() -> SorterGauge:
        (found,) = tell(machine, shelf, Heard(b"autoscaler", GaugeRequest(), 1))
        assert isinstance(found, SorterGauge)
        return found

    shelf = Shelf()
    machine = SorterMachine("xrf", shelf, ByteBudget(64 * MIB, 10 * MIB))
    for start in range(1, 8):
        store(machine, shelf, start)
    assert (gauge().waiting, gauge().waiting_bytes, gauge().full) == (7, 7 * MIB, "")
    store(machine, shelf, 8)
    assert "8 MiB of results wait for the sink" in gauge().full, "the next one like these would be refused"
    tell(machine, shelf, Heard(SINK, Refused(reason="the disk is full")))
    assert gauge().full == "the sink refuses results: the disk is full"
    store(machine, shelf, 0)
    tell(machine, shelf, Heard(SINK, Released(task=task_of(0).id)))
    tell(machine, shelf, Heard(SINK, Released(task=task_of(1).id)))
    assert (gauge().waiting, gauge().full) == (7, "")


def test_a_verdict_without_a_result_is_always_taken() -> None:
    shelf = Shelf()
    machine = SorterMachine("xrf", shelf, ByteBudget(64 * MIB, 1 * MIB))
    request = StoreRequest(task=task_of(7), attempt=1, outcome="abandoned", reason="off")
    machine.room.waiting = 0
    assert isinstance(store(machine, shelf, 0, 2 * MIB), Ok)
    assert isinstance(tell(machine, shelf, Heard(b"buffer", request, 1))[0], Ok)


def test_a_thousand_that_finish_at_once_come_one_after_the_other() -> None:
    shelf = Shelf()
    machine = SorterMachine("xrf", shelf, ByteBudget(memory=100 * MIB))
    ask = RoomRequest(task=task_of(0).id, size=30 * MIB)
    answers = [tell(machine, shelf, Heard(b"%d" % number, ask, 1))[0] for number in range(1000)]
    assert [isinstance(answer, Ok) for answer in answers] == [True] * 3 + [False] * 997
    assert all(isinstance(answer, Ok) or answer.retry_after > 0 for answer in answers if isinstance(answer, Ok | Refused))
    machine.room.came(b"1")
    assert isinstance(tell(machine, shelf, Heard(b"999", ask, 1))[0], Ok)
    assert isinstance(tell(machine, shelf, Heard(b"998", ask, 1))[0], Refused)
    assert isinstance(tell(machine, shelf, Heard(b"998", ask, 1), PROMISE + 1)[0], Ok), "promises lapse: their workers died"
    alone = ByteBudget(memory=1)
    assert alone.ask(b"w", 30 * MIB, Seconds(0.0)) == "", "one that is larger than the budget comes alone"


def test_no_more_than_the_credit_is_under_way_for_all_products_together() -> None:
    shelf = Shelf()
    machine = SorterMachine("xrf", shelf)
    sent: list[Message] = []
    for scan in "abc":
        for start in range(3):
            request = StoreRequest(task=task_of(start, scan=scan), attempt=1, outcome="empty")
            sent += tell(machine, shelf, Heard(b"worker", request, 1))
    releases = [one.result.task for one in sent if isinstance(one, Release)]
    assert len(releases) == CREDIT
    more = tell(machine, shelf, Heard(SINK, Released(task=releases[0].id)))
    assert len([one for one in more if isinstance(one, Release)]) == 1


def test_a_distributor_says_that_it_is_full_and_goes_on_when_a_buffer_has_taken() -> None:
    shelf = Shelf()
    machine = DistributorMachine({"xrf": "xrf"}, shelf, backlog=10 * ROW)
    answers = [tell(machine, shelf, Heard(b"s", SubmitRequest(tasks=(task_of(n),)), 1))[0] for n in range(10)]
    assert [type(answer) for answer in answers] == [Ok] * 8 + [Refused] * 2
    refused = answers[-1]
    assert isinstance(refused, Refused)
    assert refused.retry_after > 0
    assert "8 tasks wait to be taken by buffers" in refused.reason
    assert isinstance(tell(machine, shelf, Heard(b"s", SubmitRequest(tasks=(task_of(0),)), 1))[0], Ok), "it is known"
    tell(machine, shelf, Heard(b"b", PullRequest(pipeline=PipelineName("xrf"), after=5, credit=0), 1))
    assert isinstance(tell(machine, shelf, Heard(b"s", SubmitRequest(tasks=(task_of(9),)), 1))[0], Ok)
