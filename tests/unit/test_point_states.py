"""The seven states: whatever happens to tasks, each is counted in the state that it is in, and none is left out."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from beamline_side.cores.buffer.buffer import DISTRIBUTOR, SORTER, BufferMachine
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.spool.sqlite_spool import Spool
from beamtide.config.models import LeaseConfig, PipelineConfig, SourceConfig
from beamtide.machine import Heard, Send
from beamtide.messages.base import Digest, Ok, PipelineName, ScanId, TaskId
from beamtide.messages.results import StoreRequest
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.messages.tasks import (
    CancelRequest,
    Cause,
    Lease,
    LeaseRequest,
    Outcome,
    StatusRequest,
    SubmitRequest,
    Tally,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from beamtide.point_states import OPEN, STATES, counted, said
from tests.unit.test_buffer_and_distributor import Driven, task_of

PLANNED, FAULTS, LOSSES = 12, 4, 3
ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 5)),
    st.tuples(st.just("lease"), st.just(0)),
    st.tuples(st.just("fault"), st.just(0)),
    st.tuples(st.sampled_from(["result", "empty", "fault", "infra", "handback"]), st.integers(0, 99)),
    st.tuples(st.just("rest"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.just(0)),
)


def pair() -> tuple[Driven, Driven]:
    spools = Spool(None), Spool(None)
    config = PipelineConfig(pipeline="xrf", modality="xrf", source=SourceConfig(match="*"))
    leases = LeaseConfig(ttl=10_000, beat=1, faults=FAULTS, losses=LOSSES)
    return Driven(DistributorMachine({"xrf": "xrf"}, spools[0]), spools[0]), Driven(
        BufferMachine(config, leases, spools[1]), spools[1]
    )


@dataclass
class Scan:
    """Two real cores, and a plain list of what every task should be."""

    distributor: Driven
    buffer: Driven
    state: dict[TaskId, str] = field(default_factory=lambda: {task_of(number).id: "not_asked" for number in range(PLANNED)})
    workers: dict[TaskId, tuple[str, int]] = field(default_factory=dict)
    bad: Counter[tuple[TaskId, str]] = field(default_factory=Counter)

    def carry(self, sent: list[Send]) -> None:
        """Carry messages between the two until none is left; the sorter takes every verdict."""
        while sent:
            one = sent.pop(0)
            if one.peer == DISTRIBUTOR:
                sent += [
                    Send(b"buffer", answer.message, answer.reply_to)
                    for answer in self.distributor.tell(Heard(b"buffer", one.message, 1))
                    if answer.peer == b"buffer"
                ]
            elif one.peer == b"buffer":
                sent += self.buffer.tell(Heard(DISTRIBUTOR, one.message, 0, 1))
            elif one.peer == SORTER and isinstance(one.message, StoreRequest):
                sent += self.buffer.tell(Heard(SORTER, Ok(note=one.message.task.id)))

    def rest(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            for core in (self.distributor, self.buffer):
                self.carry([send for send in core.wait(0.5) if send.peer in (DISTRIBUTOR, SORTER, b"buffer")])

    def act(self, action: str, number: int) -> None:
        """Do something, and give the two time to tell each other of tasks and verdicts, but failed tasks no time to rest."""
        before = [state in OPEN[1:] for state in self.state.values()]
        self.do(action, number)
        changed = before != [state in OPEN[1:] for state in self.state.values()]
        self.rest(number if action == "rest" else 3 if changed else 0.5)

    def do(self, action: str, number: int) -> None:
        if action == "submit":
            tasks = tuple(task_of(at) for at in range(PLANNED) if self.state[task_of(at).id] == "not_asked")[:number]
            if tasks:
                self.distributor.ask(SubmitRequest(tasks=tasks))
                self.state |= {task.id: "queued" for task in tasks}
        elif action == "lease":
            self.lease()
        elif action == "cancel":
            self.distributor.ask(CancelRequest(scan=ScanId("s"), reason="enough"))
            gone = {task for task, state in self.state.items() if state in ("queued", "running", "retrying")}
            self.state |= dict.fromkeys(gone, "abandoned")
            self.workers = {task: worker for task, worker in self.workers.items() if task not in gone}
        elif action != "rest" and self.workers:
            task = sorted(self.workers)[number % len(self.workers)]
            self.end(task, action)

    def lease(self) -> None:
        name = f"w{sum(self.bad.values())}-{len(self.workers)}-{self.buffer.time}"
        (answer, *_) = self.buffer.ask(LeaseRequest(worker=name, job="1", wait=0.0), name.encode()) or [None]
        if isinstance(answer, Lease):
            self.state[answer.task.id] = "running"
            self.workers[answer.task.id] = (name, answer.attempt)

    def end(self, task: TaskId, how: str) -> None:
        name, attempt = self.workers.pop(task)
        if how in ("result", "empty"):
            outcome: Outcome = "result" if how == "result" else "empty"
            self.carry(
                self.buffer.tell(Heard(name.encode(), TaskDone(task=task, attempt=attempt, worker=name, outcome=outcome), 1))
            )
            self.state[task] = "done" if how == "result" else "empty"
            return
        cause: Cause = "fault" if how == "fault" else "infra" if how == "infra" else "handback"
        self.carry(
            self.buffer.tell(
                Heard(name.encode(), TaskFailed(task=task, attempt=attempt, worker=name, cause=cause, reason="x"), 1)
            )
        )
        self.bad[task, how] += 1
        over = self.bad[task, "fault"] >= FAULTS or self.bad[task, "infra"] >= LOSSES
        self.state[task] = "abandoned" if over else "retrying"

    def shown(self) -> dict[str, int]:
        (status,) = (one for one in self.distributor.ask(StatusRequest(scan=ScanId("s"))) if isinstance(one, TaskStatus))
        (gauge,) = (one for one in self.buffer.ask(GaugeRequest()) if isinstance(one, BufferGauge))
        return counted(PLANNED, status.tallies, gauge.leased, int(self.buffer.machine.progress()["retrying"]))


@settings(max_examples=40, deadline=None)
@example([("submit", 1), ("lease", 0), ("fault", 0)])  # it rests before its next attempt
@given(st.lists(ACTIONS, max_size=25))
def test_every_task_is_in_the_state_that_is_shown(actions: list[tuple[str, int]]) -> None:
    scan = Scan(*pair())
    scan.rest(3)
    for action, number in actions:
        scan.act(action, number)
        truth = Counter(scan.state.values())
        assert scan.shown() == {state: truth[state] for state in STATES}, (action, number)


COUNTS = st.integers(0, 50)


@given(COUNTS, st.lists(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), max_size=3), COUNTS, COUNTS)
def test_the_seven_are_all_tasks(planned: int, products: list[tuple[int, int, int, int]], leased: int, retrying: int) -> None:
    tallies = [
        Tally(
            scan=ScanId("s"),
            pipeline=PipelineName("xrf"),
            settings=Digest(str(number)),
            submitted=waiting + results + empty + abandoned,
            results=results,
            empty=empty,
            abandoned=abandoned,
        )
        for number, (waiting, results, empty, abandoned) in enumerate(products)
    ]
    found = counted(planned, tallies, leased, retrying)
    assert tuple(found) == STATES
    assert min(found.values()) >= 0
    assert sum(found.values()) == max(planned, sum(tally.submitted for tally in tallies))
    assert found["running"] <= leased
    assert found["retrying"] <= retrying


def test_states_are_said_as_words() -> None:
    assert [said(state) for state in STATES] == ["not asked", "queued", "running", "retrying", "done", "empty", "abandoned"]
