"""What buffer and distributor say, one situation each; the stories tell the rest."""

import msgspec
import pytest

from beamline_side.cores.buffer.buffer import DISTRIBUTOR, FENCE, SORTER, BufferMachine
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.spool.sqlite_spool import Spool
from beamtide.config.models import LeaseConfig
from beamtide.machine import Event, Forget, Heard, Keep, Machine, Send, Tick, Unreachable
from beamtide.messages.base import Message, Ok, PipelineName, Refused, ScanId, Seconds
from beamtide.messages.fences import FencePending, FenceReached, FenceRequest
from beamtide.messages.results import StoreRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import (
    Beat,
    Cancelled,
    CancelRequest,
    Closed,
    Entry,
    Lease,
    LeaseRequest,
    Need,
    NoTask,
    Pulled,
    PullRequest,
    Stale,
    StatusRequest,
    SubmitRequest,
    Task,
    TaskDone,
    TaskFailed,
    TaskStatus,
    WatchTasksRequest,
)
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_need, make_task

POSITIONS = make_need(200)


def task_of(number: int, needs: tuple[Need, ...] = (), void: str = "", scan: str = "s") -> Task:
    more = {"pipeline": "xrf", "modality": "xrf", "needs": needs, "void": void}
    return make_task(number * 10, number * 10 + 10, id=f"{scan}/xrf/d/{number}", scan=scan, **more)


class Driven:
    """A core on a spool in memory; each event is followed by a tick, as the pump does it."""

    def __init__(self, machine: Machine, spool: Spool) -> None:
        self.machine, self.spool, self.time = machine, spool, 0.0

    def tell(self, event: Event) -> list[Send]:
        if not isinstance(event, Tick):
            return self._perform(event) + self._perform(Tick())
        return self._perform(event)

    def _perform(self, event: Event) -> list[Send]:
        sent = []
        for effect in self.machine.handle(event, Seconds(self.time)):
            match effect:
                case Keep(table=table, key=key, body=body):
                    self.spool.keep(table, key, body)
                case Forget(table=table, key=key):
                    self.spool.forget(table, key)
                case Send():
                    sent.append(effect)
        self.spool.commit()
        self.machine.check()
        return sent

    def wait(self, seconds: float) -> list[Send]:
        """Let time pass, with a tick each second, as the pump does it."""
        end, sent = self.time + seconds, []
        while self.time < end:
            self.time = min(end, self.time + 1.0)
            sent += self.tell(Tick())
        return sent

    def ask(self, message: Message, peer: bytes = b"w", question: int = 1) -> list[Message]:
        return [send.message for send in self.tell(Heard(peer, message, question)) if send.peer == peer]

    def pull(self, *tasks: Task, first: int = 1) -> list[Send]:
        entries = tuple(Entry(seq=first + n, task=task) for n, task in enumerate(tasks))
        return self.tell(Heard(DISTRIBUTOR, Pulled(pipeline=PipelineName("xrf"), entries=entries)))


@pytest.fixture
def buffer() -> Driven:
    spool = Spool(None)
    config = make_pipeline()
    return Driven(BufferMachine(config, LeaseConfig(), spool), spool)


@pytest.fixture
def distributor() -> Driven:
    spool = Spool(None)
    return Driven(DistributorMachine({"xrf": "xrf", "spare": "xrd"}, spool), spool)


def lease(worker: str, wait: float = 10.0) -> LeaseRequest:
    return LeaseRequest(worker=worker, job="1", wait=wait)


# --- buffer --------------------------------------------------------------------------------------------------------


def test_the_newest_idle_worker_is_served_first(buffer: Driven) -> None:
    for worker in ("old", "new"):
        buffer.ask(lease(worker), worker.encode())
    (sent,) = [send for send in buffer.pull(task_of(0)) if isinstance(send.message, Lease)]
    assert sent.peer == b"new"
    assert sent.reply_to == 1
    buffer.time = 10.0
    assert [(s.peer, s.message) for s in buffer.tell(Tick()) if isinstance(s.message, NoTask)] == [(b"old", NoTask())]


def test_a_worker_that_asks_again_gets_the_same_lease(buffer: Driven) -> None:
    buffer.pull(task_of(0), task_of(1))
    first = buffer.ask(lease("w"), b"socket 1")
    assert buffer.ask(lease("w"), b"socket 2") == first


def test_a_worker_that_is_gone_before_it_heard_costs_nothing(buffer: Driven) -> None:
    buffer.pull(task_of(0))
    for attempt in range(1, 30):
        (granted,) = buffer.ask(lease(f"w{attempt}"), b"gone")
        assert isinstance(granted, Lease)
        assert granted.attempt == attempt
        buffer.tell(Unreachable(b"gone"))
    assert buffer.machine.progress()["ready"] == 1


def test_a_worker_that_asked_again_keeps_its_lease_when_its_first_socket_is_gone(buffer: Driven) -> None:
    """Found by the imaginary site: the task went to somebody else, and the worker got a lease that was over already."""
    buffer.pull(task_of(0))
    first = buffer.ask(lease("w"), b"socket 1")
    assert buffer.ask(lease("w"), b"socket 2") == first
    buffer.tell(Unreachable(b"socket 1"))
    assert buffer.machine.progress()["leased"] == 1
    buffer.tell(Unreachable(b"socket 2"))
    assert buffer.machine.progress()["leased"] == 0


def test_a_worker_that_was_heard_keeps_its_lease_when_its_socket_breaks(buffer: Driven) -> None:
    buffer.pull(task_of(0))
    buffer.ask(lease("w"))
    assert buffer.ask(Beat(worker="w", task=task_of(0).id, attempt=1)) == [Ok()]
    buffer.tell(Unreachable(b"w"))
    assert buffer.ask(TaskDone(worker="w", task=task_of(0).id, attempt=1)) == [Ok()]


def test_answers_to_reports(buffer: Driven) -> None:
    buffer.pull(task_of(0))
    buffer.ask(lease("w"))
    done = TaskDone(worker="w", task=task_of(0).id, attempt=1, seconds=2.0)
    assert buffer.ask(msgspec.structs.replace(done, attempt=7)) == [Stale(task=task_of(0).id, attempt=7)]
    assert buffer.ask(done) == [Ok()]
    assert buffer.ask(done) == [Ok()], "its first answer may have been lost"
    failed = TaskFailed(worker="w", task=task_of(0).id, attempt=1, cause="infra", reason="late news")
    assert buffer.ask(failed) == [Stale(task=task_of(0).id, attempt=1)]


def test_gauge_and_why(buffer: Driven) -> None:
    assert buffer.machine.why() == ""
    buffer.pull(task_of(0, (POSITIONS,)), task_of(1, (POSITIONS,)), task_of(2), task_of(3))
    buffer.tell(Heard(FENCE, FencePending(scan=ScanId("s"), need=POSITIONS, complete=100)))
    why = buffer.machine.why()
    assert "2 tasks wait for a fence: positions complete to index 100 of 200" in why
    assert "2 tasks wait and no worker is there" in why
    buffer.wait(4.0)
    buffer.ask(lease("w"))
    buffer.ask(TaskDone(worker="w", task=task_of(2).id, attempt=1, outcome="empty", seconds=2.0))
    (gauge,) = buffer.ask(GaugeRequest(), b"autoscaler")
    assert isinstance(gauge, BufferGauge)
    assert (gauge.ready, gauge.held, gauge.leased, gauge.oldest_wait) == (1, 2, 0, 4.0)
    assert (gauge.service_time, gauge.arrival_rate, gauge.done) == (2.0, 0.8, 1)


def test_one_question_for_many_tasks_behind_a_fence(buffer: Driven) -> None:
    sent = buffer.pull(*(task_of(n, (msgspec.structs.replace(POSITIONS, upto=10 + n),)) for n in range(50)))
    (question,) = [send.message for send in sent if isinstance(send.message, FenceRequest)]
    assert isinstance(question, FenceRequest)
    assert question.need.upto == 10
    again = buffer.tell(Heard(FENCE, FencePending(scan=ScanId("s"), need=question.need, complete=4)))
    assert [send.message for send in again if send.peer == FENCE] == [question], "asked again at once, not after a time-out"
    buffer.tell(Heard(FENCE, FenceReached(scan=ScanId("s"), need=question.need, complete=40)))
    assert (buffer.machine.progress()["ready"], buffer.machine.progress()["held"]) == (31, 19)


def test_after_a_restart_a_task_still_waits_for_its_fence(buffer: Driven) -> None:
    buffer.pull(task_of(0, (POSITIONS,)))
    config = make_pipeline()
    buffer.machine = BufferMachine(config, LeaseConfig(), buffer.spool)
    assert FENCE in {send.peer for send in buffer.tell(Tick())}
    assert (buffer.machine.progress()["ready"], buffer.machine.progress()["held"]) == (0, 1)


def test_an_abandoned_task_is_told_to_the_sorter_until_it_says_ok(buffer: Driven) -> None:
    sent = buffer.pull(task_of(0, void="the frames never came"))
    (letter,) = [send.message for send in sent if send.peer == SORTER]
    assert letter == StoreRequest(
        task=task_of(0, void="the frames never came"), attempt=0, outcome="abandoned", reason="the frames never came"
    )
    buffer.time = 6.0
    assert [send.message for send in buffer.tell(Tick()) if send.peer == SORTER] == [letter]
    buffer.tell(Heard(SORTER, Ok(note="some other task")))
    buffer.tell(Heard(SORTER, Ok(note=task_of(0).id)))
    buffer.time = 60.0
    assert not [send for send in buffer.tell(Tick()) if send.peer == SORTER]


def test_a_full_buffer_does_not_pull_but_still_hears_of_cancellations(buffer: Driven) -> None:
    sent = buffer.pull(*(task_of(n) for n in range(1000)))
    (pull,) = [send.message for send in sent if isinstance(send.message, PullRequest)]
    assert isinstance(pull, PullRequest)
    assert (pull.after, pull.credit) == (1000, 0)
    ahead = Entry(seq=5000, cancelled=Cancelled(scan=ScanId("s"), reason="wrong sample"))
    buffer.tell(Heard(DISTRIBUTOR, Pulled(pipeline=PipelineName("xrf"), entries=(), ahead=(ahead,))))
    assert buffer.machine.progress()["ready"] == 0, "nobody gets a task of it any more"
    buffer.wait(5.0)
    assert buffer.machine.progress()["abandoned"] == 1000


# --- distributor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pipeline": "xrff"}, ["'xrff'", "spare, xrf"]),
        ({"modality": "xrd"}, ["is for xrf, not for xrd"]),
        ({"stop": 0}, ["0 <= start < stop"]),
        ({"scan": "../../etc"}, ["'../../etc'"]),
        ({"id": ""}, ["task id"]),
    ],
)
def test_tasks_that_cannot_be_are_refused_whole(distributor: Driven, change: dict[str, object], words: list[str]) -> None:
    bad = msgspec.structs.replace(task_of(1), **change)
    (answer,) = distributor.ask(SubmitRequest(tasks=(task_of(0), bad)))
    assert isinstance(answer, Refused)
    assert all(word in answer.reason for word in words)
    assert distributor.ask(StatusRequest()) == [TaskStatus(tallies=(), version=0)], "half of the request was accepted"


def test_a_pull_waits_for_tasks_and_a_watcher_for_verdicts(distributor: Driven) -> None:
    pull = PullRequest(pipeline=PipelineName("xrf"), after=0, credit=2)
    assert distributor.ask(pull, b"buffer") == []
    assert distributor.ask(WatchTasksRequest(scan=ScanId("s"), after=0), b"client", 5) == []
    sent = distributor.tell(Heard(b"source", SubmitRequest(tasks=tuple(task_of(n) for n in range(3)))))
    by_peer = {send.peer: send.message for send in sent}
    pulled, status = by_peer[b"buffer"], by_peer[b"client"]
    assert isinstance(pulled, Pulled)
    assert [entry.seq for entry in pulled.entries] == [1, 2]
    assert isinstance(status, TaskStatus)
    assert status.tallies[0].submitted == 3
    assert by_peer[b"source"] == Ok()


def test_verdicts_are_counted_once_and_reasons_name_the_indexes(distributor: Driven) -> None:
    distributor.ask(SubmitRequest(tasks=tuple(task_of(n) for n in range(40))))
    closed = tuple(Closed(task=task_of(n).id, outcome="abandoned", reason="poison") for n in range(30))
    pull = PullRequest(pipeline=PipelineName("xrf"), after=40, credit=0, closed=closed)
    for _ in range(2):
        (pulled,) = distributor.ask(pull, b"buffer")
        assert isinstance(pulled, Pulled)
        assert pulled.confirmed == tuple(verdict.task for verdict in closed)
    distributor.machine = DistributorMachine({"xrf": "xrf", "spare": "xrd"}, distributor.spool)
    (status,) = distributor.ask(StatusRequest(scan=ScanId("s")))
    assert isinstance(status, TaskStatus)
    assert (status.tallies[0].abandoned, len(status.tallies[0].reasons)) == (30, 20)
    assert status.tallies[0].reasons[-1] == "indexes 290 to 299: poison"
    assert status.version > 0


def test_a_closed_task_that_is_submitted_again_stays_closed(distributor: Driven) -> None:
    distributor.ask(SubmitRequest(tasks=(task_of(0),)))
    verdict = (Closed(task=task_of(0).id, outcome="result"),)
    distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=1, credit=9, closed=verdict), b"buffer")
    assert distributor.ask(SubmitRequest(tasks=(task_of(0),))) == [Ok()]
    assert distributor.machine.progress()["queued.xrf"] == 0


def test_what_was_closed_before_claims_were_kept_stays_closed(distributor: Driven) -> None:
    """A spool of 0.1.0 knows which indexes are finished, and has no table of claimed ones."""
    distributor.ask(SubmitRequest(tasks=(task_of(0),)))
    verdict = (Closed(task=task_of(0).id, outcome="result"),)
    distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=1, credit=9, closed=verdict), b"buffer")
    for key, _ in list(distributor.spool.rows("claimed")):
        distributor.spool.forget("claimed", key)
    distributor.spool.commit()
    after = Driven(DistributorMachine({"xrf": "xrf"}, distributor.spool), distributor.spool)
    assert after.ask(SubmitRequest(tasks=(task_of(0),))) == [Ok()]
    assert after.machine.progress()["queued.xrf"] == 0


def test_a_cancellation_reaches_a_buffer_that_waits_with_no_credit(distributor: Driven) -> None:
    distributor.ask(SubmitRequest(tasks=tuple(task_of(n) for n in range(5))))
    assert distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=0, credit=0), b"buffer") == []
    sent = distributor.tell(Heard(b"operator", CancelRequest(scan=ScanId("s"), reason="wrong sample")))
    (pulled,) = [send.message for send in sent if send.peer == b"buffer"]
    assert isinstance(pulled, Pulled)
    assert [entry.seq for entry in pulled.ahead] == [6]
    assert distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=0, credit=0), b"buffer") == [], (
        "said once, not in a loop"
    )


def test_a_distributor_that_lost_its_disk_goes_on_behind_the_buffers_cursor(distributor: Driven) -> None:
    distributor.ask(PullRequest(pipeline=PipelineName("xrf"), after=70, credit=9), b"buffer")
    sent = distributor.tell(Heard(b"source", SubmitRequest(tasks=(task_of(0),))))
    (pulled,) = [send.message for send in sent if isinstance(send.message, Pulled)]
    assert isinstance(pulled, Pulled)
    assert [entry.seq for entry in pulled.entries] == [71]
