"""A real buffer makes every change of the tables in `task_states`, and no other: so the pictures in docs/states.md are true."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamline_side.cores.buffer.buffer import DISTRIBUTOR, FENCE, BufferMachine
from beamline_side.cores.buffer.task_states import ARRIVALS, CHANGES, LEASE, LeaseFact, LeaseState, TaskFact, TaskState
from beamline_side.spool.sqlite_spool import Spool
from beamtide.config.models import LeaseConfig, PipelineConfig, SourceConfig
from beamtide.machine import Heard
from beamtide.messages.base import Message, Ok, PipelineName, ScanId, TaskId
from beamtide.messages.dead_letters import DropRequest, RetryRequest
from beamtide.messages.fences import FenceBroken, FenceReached
from beamtide.messages.tasks import Beat, Cancelled, Cause, Entry, Lease, LeaseRequest, Pulled, Stale, TaskDone, TaskFailed
from tests.unit.test_buffer_and_distributor import POSITIONS, Driven, task_of

FAULTS, LOSSES, TTL = 3, 2, 60.0
S, F, L = TaskState, TaskFact, LeaseFact
FACTS = [*(fact for fact in TaskFact if fact is not F.LIMIT), F.COMES, F.COMES, F.TAKEN, F.TAKEN, F.TAKEN, F.FAILED]
ENDS: dict[TaskFact, Cause] = {F.FAILED: "fault", F.LOST: "infra", F.HANDED_BACK: "handback"}


def driven() -> Driven:
    spool = Spool(None)
    config = PipelineConfig(pipeline="xrf", modality="xrf", source=SourceConfig(match="*"))
    return Driven(BufferMachine(config, LeaseConfig(ttl=TTL, beat=1, faults=FAULTS, losses=LOSSES), spool), spool)


def state_of(buffer: BufferMachine, task: TaskId) -> TaskState:
    """Look where a buffer keeps a task."""
    table = buffer._table
    resting = {one for _, one in table._resting if one in table._open_tasks}
    places = {
        S.FENCED: task in buffer._fenced._held,
        S.QUEUED: task in buffer._backlog._arrivals,
        S.LEASED: task in table._leased,
        S.READY: task in table._ready,
        S.RESTING: task in resting - table._ready.keys() - table._leased.keys(),
        S.DEAD: task in buffer._letters._names,
    }
    found = [state for state, here in places.items() if here]
    assert len(found) <= 1, "a task is in two states"
    return found[0] if found else S.CLOSED


@dataclass
class Life:
    """One buffer and its tasks: what each of them is by the tables, and which changes were made."""

    core: Driven = field(default_factory=driven)
    expected: dict[TaskId, TaskState] = field(default_factory=dict)
    holders: dict[TaskId, tuple[str, int]] = field(default_factory=dict)
    bad: Counter[tuple[TaskId, str]] = field(default_factory=Counter)
    seen: set[tuple[TaskState, TaskFact] | TaskFact] = field(default_factory=set)
    entries: int = 0

    @property
    def buffer(self) -> BufferMachine:
        assert isinstance(self.core.machine, BufferMachine)
        return self.core.machine

    def arrive(self, fact: TaskFact) -> None:
        needs, void = ((POSITIONS,) if fact is F.COMES_WITH_NEED else ()), "nothing came" if fact is F.COMES_VOID else ""
        task = task_of(self.entries, needs, void)
        self.enter(Entry(seq=self.next(), task=task))
        self.expected[task.id] = ARRIVALS[fact]
        self.seen.add(fact)

    def next(self) -> int:
        self.entries += 1
        return self.entries

    def enter(self, entry: Entry) -> None:
        self.core.tell(Heard(DISTRIBUTOR, Pulled(pipeline=PipelineName("xrf"), entries=(entry,))))

    def all_in(self, state: TaskState) -> list[TaskId]:
        return [task for task, now in self.expected.items() if now is state]

    def changed(self, task: TaskId, fact: TaskFact) -> None:
        before = self.expected[task]
        self.seen.add((before, fact))
        self.expected[task] = CHANGES[before, fact]

    def happen(self, fact: TaskFact, which: int = 0) -> None:
        """Let a fact happen to a task to which it can, if there is one; then compare all tasks with the tables."""
        if fact in ARRIVALS:
            self.arrive(fact)
        elif fact in (F.FENCE_REACHED, F.FENCE_BROKEN):
            self.fence(fact)
        elif fact is F.CANCELLED:
            self.cancel()
        elif fact is F.RESTED:
            self.core.wait(9)
            for task in self.all_in(S.RESTING):
                self.changed(task, F.RESTED)
        elif fact is F.TAKEN:
            self.take()
        elif fact in (F.RETRIED, F.DROPPED):
            self.letters(fact)
        elif self.holders:
            self.end(sorted(self.holders)[which % len(self.holders)], fact)
        self.compare()

    def compare(self) -> None:
        assert {task: state_of(self.buffer, task) for task in self.expected} == self.expected

    def fence(self, fact: TaskFact) -> None:
        answer: Message = FenceReached(scan=ScanId("s"), need=POSITIONS, complete=200)
        if fact is F.FENCE_BROKEN:
            answer = FenceBroken(scan=ScanId("s"), need=POSITIONS, reason="the scan ended")
        self.core.tell(Heard(FENCE, answer))
        for task in self.all_in(S.FENCED):
            self.changed(task, fact)

    def cancel(self) -> None:
        self.enter(Entry(seq=self.next(), cancelled=Cancelled(scan=ScanId("s"), reason="enough")))
        self.core.wait(1)
        for task, state in list(self.expected.items()):
            if (state, F.CANCELLED) in CHANGES:
                self.changed(task, F.CANCELLED)
        for task, (name, attempt) in self.holders.items():
            assert self.beat(task, name, attempt) == Stale(task=task, attempt=attempt)
        self.holders.clear()

    def take(self) -> None:
        name = f"w{self.core.time}-{len(self.seen)}-{sum(self.bad.values())}-{len(self.holders)}"
        for answer in self.core.ask(LeaseRequest(worker=name, job="1", wait=0.0), name.encode()):
            if isinstance(answer, Lease):
                self.holders[answer.task.id] = (name, answer.attempt)
                self.changed(answer.task.id, F.TAKEN)

    def letters(self, fact: TaskFact) -> None:
        dead = self.all_in(S.DEAD)[:1]
        if dead:
            message = RetryRequest(tasks=tuple(dead)) if fact is F.RETRIED else DropRequest(tasks=tuple(dead))
            assert self.core.ask(message) == [Ok()]
            self.changed(dead[0], fact)
            for how in ("fault", "infra"):
                del self.bad[dead[0], how]

    def beat(self, task: TaskId, name: str, attempt: int) -> Message:
        return self.core.ask(Beat(task=task, attempt=attempt, worker=name, progress=0.5), name.encode())[0]

    def end(self, task: TaskId, fact: TaskFact) -> None:
        name, attempt = self.holders.pop(task)
        assert self.beat(task, name, attempt) == Ok()
        if fact is F.STORED:
            self.core.ask(TaskDone(task=task, attempt=attempt, worker=name, outcome="result"), name.encode())
        else:
            cause = ENDS[fact]
            self.core.ask(TaskFailed(task=task, attempt=attempt, worker=name, cause=cause, reason="x"), name.encode())
            self.bad[task, cause] += 1
        over = self.bad[task, "fault"] >= FAULTS or self.bad[task, "infra"] >= LOSSES
        self.changed(task, F.LIMIT if over and fact is not F.STORED else fact)
        assert self.beat(task, name, attempt) == Stale(task=task, attempt=attempt), "an attempt that is over changes nothing"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FACTS), st.integers(0, 9)), min_size=15, max_size=40))
def test_a_buffer_makes_only_the_changes_of_the_table(facts: list[tuple[TaskFact, int]]) -> None:
    life = Life()
    for fact, which in facts:
        life.happen(fact, which)


def test_a_buffer_makes_every_change_of_the_table() -> None:
    life = Life()
    for fact in (F.COMES_VOID, F.COMES_WITH_NEED, F.FENCE_BROKEN, F.COMES_WITH_NEED, F.FENCE_REACHED):
        life.happen(fact)
    for fact in (
        F.TAKEN,
        F.FAILED,
        F.RESTED,
        F.TAKEN,
        F.LOST,
        F.TAKEN,
        F.LOST,
        F.RETRIED,
        F.TAKEN,
        F.HANDED_BACK,
        F.TAKEN,
        F.STORED,
    ):
        life.happen(fact)
    for fact in (F.COMES, F.TAKEN, F.LOST, F.TAKEN, F.LOST, F.DROPPED):
        life.happen(fact)
    for first in ((F.COMES_WITH_NEED,), (F.COMES,), (F.COMES, F.TAKEN), (F.COMES, F.TAKEN, F.FAILED), (F.COMES, F.TAKEN, F.LOST)):
        for fact in (*first, F.CANCELLED):
            life.happen(fact)
    assert life.seen == {*ARRIVALS, *CHANGES}


@pytest.mark.parametrize(("fact", "state"), [(fact, state) for (_, fact), state in LEASE.items()], ids=lambda one: one.name)
def test_a_lease_ends_as_the_table_says(fact: LeaseFact, state: LeaseState) -> None:
    life = Life()
    life.happen(F.COMES)
    life.happen(F.TAKEN)
    ((task, (name, attempt)),) = life.holders.items()
    causes: dict[LeaseFact, Cause] = {L.FAULT: "fault", L.DEATH: "infra", L.HANDBACK: "handback"}
    if fact is L.HEARTBEAT:
        for _ in range(3):
            life.core.wait(TTL - 1)
            assert life.beat(task, name, attempt) == Ok()
    elif fact is L.SILENCE:
        life.core.wait(TTL - 1)
        assert life.buffer._table.holds(task, attempt)
        life.core.wait(2)
    elif fact is L.DONE:
        life.core.ask(TaskDone(task=task, attempt=attempt, worker=name, outcome="result"), name.encode())
    elif fact is L.CANCELLED:
        life.cancel()
    else:
        life.core.ask(TaskFailed(task=task, attempt=attempt, worker=name, cause=causes[fact], reason="x"), name.encode())
    follows = {
        LeaseState.HELD: S.LEASED,
        LeaseState.FAILED: S.RESTING,
        LeaseState.LOST: S.READY,
        LeaseState.HANDED_BACK: S.READY,
        LeaseState.DONE: S.CLOSED,
        LeaseState.CANCELLED: S.CLOSED,
    }
    assert state_of(life.buffer, task) is follows[state]
    if state is not LeaseState.HELD:
        assert life.beat(task, name, attempt) == Stale(task=task, attempt=attempt)


def test_the_tables_are_whole() -> None:
    ended = {state for state, _ in CHANGES}
    assert ended == set(TaskState) - {S.CLOSED}, "none leads out of CLOSED, and every other state has an end"
    assert {fact for _, fact in CHANGES} | set(ARRIVALS) == set(TaskFact)
    assert {state for state, _ in LEASE} == {LeaseState.HELD}
    assert {fact for _, fact in LEASE} == set(LeaseFact)
    assert set(LEASE.values()) == set(LeaseState)
