"""What the cores do with tasks that fail for good: kept, listed, retried, counted anew; also over a restart."""

import msgspec
import numpy as np
import pytest

from beamline_side.cores.buffer import dead_letters
from beamline_side.cores.buffer.buffer import DISTRIBUTOR, SORTER, BufferMachine
from beamline_side.cores.buffer.lease_table import LeaseTable
from beamline_side.cores.buffer.open_task import Verdict, open_task_of
from beamline_side.cores.buffer.orderings import fifo
from beamline_side.cores.buffer.verdicts_to_sorter import WINDOW, VerdictsToSorter
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.sink.sink import SinkMachine
from beamline_side.cores.sorter.sorter import SorterMachine
from beamline_side.spool.sqlite_spool import Spool
from beamtide.config.models import LeaseConfig
from beamtide.machine import Forget, Heard, Keep, Send, Tick, link
from beamtide.messages.base import Message, Ok, PipelineName, Seconds, TaskId
from beamtide.messages.dead_letters import DeadLetter, DeadLetters, DeadListRequest, DropRequest, RetryRequest
from beamtide.messages.results import DatasetHeader, ListRequest, Products, Release, Released, StoreRequest
from beamtide.messages.tasks import (
    CancelRequest,
    Closed,
    Lease,
    LeaseRequest,
    Pulled,
    PullRequest,
    Stale,
    StatusRequest,
    SubmitRequest,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from tests.builders.sites import make_pipeline
from tests.unit.test_buffer_and_distributor import Driven, task_of

XRF = PipelineName("xrf")


def machine(spool: Spool, leases: LeaseConfig | None = None) -> BufferMachine:
    return BufferMachine(make_pipeline(), leases or LeaseConfig(), spool)


@pytest.fixture
def buffer() -> Driven:
    spool = Spool(None)
    return Driven(machine(spool), spool)


def lease(buffer: Driven, number: int) -> Lease:
    (granted,) = buffer.ask(LeaseRequest(worker=f"h{number}-7", job=f"job {number}", wait=1.0, host=f"h{number}"))
    assert isinstance(granted, Lease)
    return granted


def fail(buffer: Driven, granted: Lease, number: int, cause: str = "fault", **left: object) -> Message:
    report = TaskFailed(
        worker=f"h{number}-7",
        task=granted.task.id,
        attempt=granted.attempt,
        cause=cause,  # type: ignore[arg-type]
        reason="the beam is off",
        host=f"h{number}",
        job=f"job {number}",
        **left,  # type: ignore[arg-type]
    )
    (answer,) = buffer.ask(report)
    return answer


def die(buffer: Driven, number: int = 0) -> None:
    """Let a task fail five times."""
    buffer.pull(task_of(number), first=number + 1)
    for attempt in range(1, 6):
        fail(buffer, lease(buffer, attempt), attempt, trace="Traceback: off", stderr="last words", at=1e9)
        buffer.wait(8.0)


def letters(buffer: Driven, task: str = "", skip: int = 0) -> DeadLetters:
    (answer,) = buffer.ask(DeadListRequest(task=TaskId(task), skip=skip))
    assert isinstance(answer, DeadLetters)
    return answer


def reported(sent: list[Send]) -> list[Closed]:
    return [one for send in sent if isinstance(send.message, PullRequest) for one in send.message.closed]


def test_five_faults_leave_a_letter_that_survives_a_restart(buffer: Driven) -> None:
    die(buffer)
    buffer.machine = machine(buffer.spool)
    (listed,) = letters(buffer).letters
    assert (listed.faults, listed.attempts, listed.host, listed.job, listed.at) == (5, 5, "h5", "job 5", 1e9)
    assert listed.reason == "failed 5 times, last with h5-7: the beam is off (on h5)"
    assert (listed.trace, listed.stderr) == ("", ""), "a list is short"
    (whole,) = letters(buffer, listed.task.id).letters
    assert (whole.trace, whole.stderr) == ("Traceback: off", "last words")
    assert letters(buffer, "another").letters == ()


def test_a_task_rests_longer_after_each_fault_and_handing_back_is_free(buffer: Driven) -> None:
    buffer.pull(task_of(0))
    for number in range(30):
        fail(buffer, lease(buffer, number), number, "handback")
    for fault, rest in enumerate((1.0, 2.0, 4.0, 8.0)):
        fail(buffer, lease(buffer, fault), fault)
        buffer.wait(rest - 0.01)
        assert buffer.machine.progress()["ready"] == 0
        buffer.wait(0.02)
        assert buffer.machine.progress()["ready"] == 1
    assert letters(buffer).total == 0


def test_a_cancelled_or_void_task_is_no_dead_letter(buffer: Driven) -> None:
    buffer.pull(task_of(0, void="the frames never came"))
    assert buffer.machine.progress()["abandoned"] == 1
    assert letters(buffer).total == 0


def lost_on(table: LeaseTable, *hosts: str) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for number, host in enumerate(hosts):
        now = Seconds(100.0 * number)
        table.expire(now)
        changes = [*table.lease(f"w{number}", now, host), *table.expire(Seconds(now + 50))]
        verdicts += [change for change in changes if isinstance(change, Verdict)]
    return verdicts


@pytest.mark.parametrize(("hosts", "faults"), [("abc", 1), ("aabbc", 1), ("aaaa", 0), ("ab", 0), ("abcabc", 2), ("abcab", 1)])
def test_losses_on_three_hosts_are_a_fault(hosts: str, faults: int) -> None:
    table = LeaseTable(10.0, 9, 9, fifo)
    table.submit(task_of(0), 1, Seconds(0))
    end = Seconds(1e4)
    assert lost_on(table, *hosts) == []
    row = next(change for change in reversed([*table.expire(end), *table.lease("x", end)]) if isinstance(change, Keep))
    assert open_task_of(row.body).faults == faults


def test_a_task_that_kills_three_hosts_dies_with_their_names() -> None:
    table = LeaseTable(10.0, 1, 10, fifo)
    table.submit(task_of(0), 1, Seconds(0))
    (verdict,) = lost_on(table, "a", "b", "c")
    assert verdict.letter is not None
    assert (verdict.letter.faults, verdict.letter.losses, verdict.letter.host) == (1, 3, "c")
    assert "lost on a, b, c" in verdict.reason


def test_ten_losses_on_one_host_leave_a_letter() -> None:
    table = LeaseTable(10.0, 5, 10, fifo)
    table.submit(task_of(0), 1, Seconds(0))
    (verdict,) = lost_on(table, *"a" * 10)
    assert verdict.letter is not None
    assert verdict.letter.losses == 10


def test_a_retry_is_the_next_generation_of_the_same_task(buffer: Driven) -> None:
    die(buffer)
    name = task_of(0).id
    for _ in range(2):
        assert buffer.ask(RetryRequest(tasks=(name, TaskId("unknown")))) == [Ok()], "asking twice changes nothing"
    buffer.machine = machine(buffer.spool)
    buffer.tell(Tick())
    assert letters(buffer).total == 0
    granted = lease(buffer, 6)
    assert (granted.task, granted.attempt) == (msgspec.structs.replace(task_of(0), generation=1), 6)
    late = TaskDone(worker="h5-7", task=name, attempt=5)
    assert buffer.ask(late) == [Stale(task=name, attempt=5)]
    buffer.time += 10
    sent = buffer.tell(Heard(b"w", TaskDone(worker="h6-7", task=name, attempt=6), 1))
    assert Closed(task=name, outcome="result", generation=1) in reported(sent)


def test_a_late_confirmation_of_the_first_verdict_does_not_take_the_second_away(buffer: Driven) -> None:
    die(buffer)
    name = task_of(0).id
    buffer.ask(RetryRequest(tasks=(name,)))
    buffer.ask(TaskDone(worker="h6-7", task=name, attempt=lease(buffer, 6).attempt))
    buffer.tell(Heard(DISTRIBUTOR, Pulled(pipeline=XRF, entries=(), confirmed=(name,))))
    buffer.time += 10
    assert [one.generation for one in reported(buffer.tell(Tick()))] == [1]
    buffer.tell(Heard(DISTRIBUTOR, Pulled(pipeline=XRF, entries=(), confirmed=(name,), generations=(1,))))
    buffer.time += 10
    assert reported(buffer.tell(Tick())) == []


def test_a_retry_that_fails_again_tells_the_sorter_and_is_a_letter_again(buffer: Driven) -> None:
    die(buffer)
    buffer.ask(RetryRequest(tasks=(task_of(0).id,)))
    told: list[Send] = []
    for attempt in range(6, 11):
        granted = lease(buffer, attempt)
        report = TaskFailed(worker="w", task=granted.task.id, attempt=attempt, cause="fault", reason="still off")
        told = buffer.tell(Heard(b"w", report, 1))
        told += buffer.wait(8.0)
    verdicts = [send.message for send in told if send.peer == SORTER]
    assert all(isinstance(one, StoreRequest) and one.task.generation == 1 and "still off" in one.reason for one in verdicts)
    assert verdicts
    buffer.tell(Heard(SORTER, Ok(note=task_of(0).id)))
    buffer.time += 10
    assert [send for send in buffer.tell(Tick()) if send.peer == SORTER] == []
    (letter,) = letters(buffer).letters
    assert (letter.task.generation, letter.attempts) == (1, 10)


def test_letters_can_be_dropped(buffer: Driven) -> None:
    die(buffer)
    die(buffer, 1)
    assert [letter.task.start for letter in letters(buffer).letters] == [10, 0], "newest first"
    assert [letter.task.start for letter in letters(buffer, skip=1).letters] == [0]
    assert buffer.ask(DropRequest(tasks=(task_of(1).id,))) == [Ok()]
    buffer.machine = machine(buffer.spool)
    assert [letter.task.start for letter in letters(buffer).letters] == [0]


def test_only_the_newest_letters_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MOST", 3)
    spool = Spool(None)
    box = dead_letters.DeadLetterBox(spool)
    for number in range(9):
        for effect in box.add(DeadLetter(task=task_of(number), seq=number, reason="off")):
            if isinstance(effect, Keep):
                spool.keep(effect.table, effect.key, effect.body)
            elif isinstance(effect, Forget):
                spool.forget(effect.table, effect.key)
        spool.commit()
    for one in (box, dead_letters.DeadLetterBox(spool)):
        one.check()
        assert [letter.seq for letter in one.answer(DeadListRequest()).letters] == [8, 7, 6]


def test_the_distributor_counts_a_retried_task_anew() -> None:
    spool = Spool(None)
    distributor = Driven(DistributorMachine({"xrf": "xrf"}, spool), spool)
    distributor.ask(SubmitRequest(tasks=(task_of(0), task_of(1))))
    name = task_of(0).id

    def close(outcome: str, generation: int, reason: str = "") -> tuple[int, int, tuple[str, ...]]:
        closed = Closed(task=name, outcome=outcome, reason=reason, generation=generation)  # type: ignore[arg-type]
        (pulled,) = distributor.ask(PullRequest(pipeline=XRF, after=2, credit=0, closed=(closed,)))
        assert isinstance(pulled, Pulled)
        assert (pulled.confirmed, pulled.generations) == ((name,), (generation,))
        (status,) = distributor.ask(StatusRequest())
        assert isinstance(status, TaskStatus)
        (tally,) = status.tallies
        return tally.results, tally.abandoned, tally.reasons

    first = (0, 1, ("indexes 0 to 9: off",))
    assert close("abandoned", 0, "off") == first
    assert close("abandoned", 0, "off") == first
    assert close("result", 0) == first, "the same generation has one verdict"
    assert close("abandoned", 1, "still off") == (0, 1, ("indexes 0 to 9: still off",))
    distributor.machine = DistributorMachine({"xrf": "xrf"}, spool)
    assert close("result", 2) == (1, 0, ())
    assert close("abandoned", 1, "late news") == (1, 0, ())
    assert close("abandoned", 3, "a result stays") == (1, 0, ())


def test_a_verdict_that_waits_is_sent_once_in_its_newest_generation() -> None:
    spool = Spool(None)
    verdicts = VerdictsToSorter(spool)

    def add(number: int, generation: int) -> None:
        task = msgspec.structs.replace(task_of(number), generation=generation)
        for effect in verdicts.add(task, 1, "off"):
            assert isinstance(effect, Keep)
            spool.keep(effect.table, effect.key, effect.body)
        spool.commit()

    for number in range(WINDOW + 3):
        add(number, 0)
    verdicts.due(Seconds(0))
    add(WINDOW + 1, 1)
    add(0, 1)
    assert len(verdicts) == WINDOW + 3
    sent: list[StoreRequest] = []
    for second in range(10):
        for effect in verdicts.due(Seconds(second)):
            assert isinstance(effect, Send)
            assert isinstance(effect.message, StoreRequest)
            sent.append(effect.message)
            for dropped in verdicts.heard(Ok(note=effect.message.task.id)):
                assert isinstance(dropped, Forget)
                spool.forget(dropped.table, dropped.key)
    assert len(verdicts) == 0
    assert [one.task.generation for one in sent if one.task.id in (task_of(0).id, task_of(WINDOW + 1).id)] == [1, 1]


def stored(generation: int, outcome: str, start: int = 0, stop: int = 10) -> StoreRequest:
    task = msgspec.structs.replace(task_of(0), generation=generation, start=start, stop=stop)
    datasets = (DatasetHeader(name="value", units="1"),) if outcome == "result" else ()
    return StoreRequest(task=task, attempt=1, outcome=outcome, reason=f"{generation}", datasets=datasets)  # type: ignore[arg-type]


def test_the_sink_lets_only_a_hole_be_corrected_by_a_higher_generation_of_its_range() -> None:
    spool = Spool(None)
    sink = Driven(SinkMachine(spool), spool)

    def release(request: StoreRequest) -> tuple[int, str]:
        arrays = {"value": np.full(10, request.task.generation)} if request.datasets else {}
        sink.tell(Heard(b"sorter", Release(result=request), 1, 0, arrays))
        (products,) = sink.ask(ListRequest())
        assert isinstance(products, Products)
        (state,) = products.products
        return state.version, state.holes[0].reason if state.holes else ""

    assert release(stored(2, "abandoned")) == (1, "2")
    assert release(stored(1, "result")) == (1, "2"), "older"
    assert release(stored(2, "result")) == (1, "2"), "as old"
    assert release(stored(3, "result", stop=9)) == (1, "2"), "another range"
    assert release(stored(3, "abandoned")) == (2, "3")
    assert release(stored(4, "result")) == (3, "")
    assert release(stored(5, "abandoned")) == (3, ""), "a result stays"
    assert release(stored(5, "result")) == (3, "")
    sink.machine = SinkMachine(spool)
    assert release(stored(4, "result")) == (3, "")


def test_a_correction_waits_until_its_range_was_released() -> None:
    spool = Spool(None)
    sorter = Driven(SorterMachine("xrf", spool), spool)

    def generations(event: Heard) -> list[int]:
        sorter.time += 10
        return [one.message.result.task.generation for one in sorter.tell(event) if isinstance(one.message, Release)]

    assert generations(Heard(b"buffer", stored(0, "abandoned", 10, 20), 1)) == []
    assert generations(Heard(b"w", stored(1, "empty", 10, 20), 1)) == [], "index 0 is still to come"
    sorter.machine = SorterMachine("xrf", spool)
    first = msgspec.structs.replace(stored(0, "empty"), task=task_of(7))
    first = msgspec.structs.replace(first, task=msgspec.structs.replace(first.task, start=0, stop=10))
    assert generations(Heard(b"w", first, 1)) == [0, 0]
    sink = link("sink")
    assert generations(Heard(sink, Released(task=first.task.id))) == [0]
    assert generations(Heard(sink, Released(task=task_of(0).id))) == [1]
    assert generations(Heard(sink, Released(task=task_of(0).id))) == [1], "that was an old answer"
    assert generations(Heard(sink, Released(task=task_of(0).id, generation=1))) == []
    assert sorter.machine.progress()["waiting"] == 0


def test_a_retried_task_can_be_cancelled(buffer: Driven) -> None:
    spool = Spool(None)
    distributor = Driven(DistributorMachine({"xrf": "xrf"}, spool), spool)
    distributor.ask(SubmitRequest(tasks=(task_of(0),)))
    verdict = Closed(task=task_of(0).id, outcome="abandoned", reason="off")
    distributor.ask(PullRequest(pipeline=XRF, after=1, credit=9, closed=(verdict,)))
    distributor.ask(CancelRequest(scan=task_of(0).scan))
    (pulled,) = distributor.ask(PullRequest(pipeline=XRF, after=1, credit=9))
    assert isinstance(pulled, Pulled)
    die(buffer)
    buffer.ask(RetryRequest(tasks=(task_of(0).id,)))
    assert buffer.machine.progress()["ready"] == 1
    buffer.tell(Heard(DISTRIBUTOR, pulled))
    assert buffer.machine.progress()["ready"] == 0
    assert letters(buffer).total == 0
