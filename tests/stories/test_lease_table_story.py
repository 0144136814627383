"""Random stories of a lease table: one verdict per task, old attempts change nothing, nothing is lost over a restart."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamline_side.cores.buffer.lease_table import LeaseTable
from beamline_side.cores.buffer.open_task import Change, Grant, Verdict, open_task_of
from beamline_side.cores.buffer.orderings import ORDERINGS
from beamtide.machine import Forget, Keep
from beamtide.messages.base import ScanId, Seconds, TaskId
from beamtide.messages.tasks import Task, TaskFailed
from tests.builders.tasks import make_task

FAULTS, LOSSES, TTL = 3, 2, 5.0


def task_of(number: int, scan: str = "s", priority: int = 0) -> Task:
    return make_task(number, scan=scan, id=f"{scan}/{number}", priority=priority)


def failure(task: TaskId, attempt: int, *, final: bool) -> TaskFailed:
    return TaskFailed(worker="w", task=task, attempt=attempt, cause="fault", reason="no such mask", final=final)


class LeaseStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rows: dict[str, bytes] = {}
        self.open: dict[str, Task] = {}
        self.latest: dict[str, Grant] = {}
        self.grants: list[Grant] = []
        self.count = 0

    @initialize(order=st.sampled_from(sorted(ORDERINGS)))
    def begin(self, order: str) -> None:
        self.order = order
        self.table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS[order])

    def tell(self, changes: list[Change] | None) -> None:
        for change in changes or []:
            match change:
                case Keep(key=key, body=body):
                    self.rows[key] = body
                case Forget(key=key):
                    del self.rows[key]
                case Verdict(task=task):
                    del self.open[task.id]
                case Grant(task=task, attempt=attempt):
                    earlier = self.latest.get(task.id)
                    assert attempt == (earlier.attempt if earlier else 0) + 1
                    assert open_task_of(self.rows[task.id]).attempt == attempt, "a lease that is not on disk"
                    self.latest[task.id] = change
                    self.grants.append(change)

    @rule(scan=st.sampled_from("ab"), priority=st.integers(0, 2))
    def submit(self, scan: str, priority: int) -> None:
        self.count += 1
        task = self.open[f"{scan}/{self.count}"] = task_of(self.count, scan, priority)
        self.tell(self.table.submit(task, self.count, Seconds(self.now)))

    @rule()
    def ask(self) -> None:
        ready = self.table.ready
        changes = self.table.lease(f"worker {len(self.grants)}", Seconds(self.now))
        assert bool(changes) == (ready > 0)
        self.tell(changes)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.9, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell(self.table.expire(Seconds(self.now)))

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        current = grant.task.id in self.open and self.latest[grant.task.id] is grant
        current = current and self.table.holds(grant.task.id, grant.attempt)
        report = failure(grant.task.id, grant.attempt, final=True)
        self.table.note(report)
        self.tell(changes := self.table.failed(report.task, report.attempt, report.cause, report.reason, Seconds(self.now)))
        if current:
            assert grant.task.id not in self.open, "what cannot succeed is not tried again"
            assert [one.reason for one in changes or [] if isinstance(one, Verdict)] == [f"{grant.worker}: no such mask"]

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), how=st.sampled_from(["beat", "result", "empty", "fault", "infra", "handback"]))
    def report(self, data: st.DataObject, how: str) -> None:
        grant = data.draw(st.sampled_from(self.grants))
        task, attempt = grant.task.id, grant.attempt
        current = task in self.open and self.latest[task] is grant and self.table.holds(task, attempt)
        before = dict(self.rows)
        if how == "beat":
            assert self.table.beat(task, attempt, Seconds(self.now)) == current
        elif how in ("result", "empty"):
            self.tell(changes := self.table.done(task, attempt, how))
            assert (task not in self.open) if current else not changes
            assert not current or self.table.done(task, attempt, how) == [], "a repeated report gets the same answer"
        else:
            self.tell(changes := self.table.failed(task, attempt, how, "why", Seconds(self.now)))
            assert not current or self.table.failed(task, attempt, how, "why", Seconds(self.now)) == []
        assert current or self.rows == before, "an old attempt changed something"

    @rule(scan=st.sampled_from("ab"))
    def cancel(self, scan: str) -> None:
        self.tell(self.table.cancel(ScanId(scan), self.count, "cancelled"))
        assert all(int(key[2:]) >= self.count for key in self.open if key.startswith(scan))

    @rule()
    def restart(self) -> None:
        leased, self.now = self.table.leased, 0.0
        self.table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS[self.order])
        for body in self.rows.values():
            self.table.restore(open_task_of(body))
        self.tell(self.table.expire(Seconds(self.now)))
        assert self.table.leased == leased
        assert self.table.wake() is None or self.table.wake() == TTL, "leases start anew, in full"

    @invariant()
    def nothing_is_lost(self) -> None:
        self.table.check()
        assert self.table.waiting + self.table.leased == len(self.open) == len(self.rows)
        assert {open_task_of(body).task.id for body in self.rows.values()} == self.open.keys()


TestLeaseStory = LeaseStory.TestCase
TestLeaseStory.settings = settings(max_examples=60, stateful_step_count=40)


def leased_in_order(order: str, tasks: list[Task]) -> list[int]:
    table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS[order])
    for seq, task in enumerate(tasks):
        table.submit(task, seq, Seconds(0.0))
    grants = [change for n in tasks for change in table.lease(f"w{n.start}", Seconds(0.0)) if isinstance(change, Grant)]
    return [grant.task.start for grant in grants]


def test_three_orders() -> None:
    tasks = [task_of(0, priority=1), task_of(1, priority=5), task_of(2, priority=1), task_of(3, priority=5)]
    assert leased_in_order("fifo", tasks) == [0, 1, 2, 3]
    assert leased_in_order("lifo", tasks) == [3, 2, 1, 0]
    assert leased_in_order("priority", tasks) == [1, 3, 0, 2]


def test_faults_rest_longer_each_time_and_end() -> None:
    table, now, rests = LeaseTable(TTL, 6, LOSSES, ORDERINGS["fifo"]), 0.0, []
    table.submit(task_of(0), 1, Seconds(0.0))
    for attempt in range(1, 6):
        assert table.lease("w", Seconds(now))
        table.failed(TaskId("s/0"), attempt, "fault", "singular matrix", Seconds(now))
        assert not table.lease("w", Seconds(now))
        wake = table.wake()
        while wake is not None and not table.ready:
            table.expire(Seconds(wake))
            rests.append(wake - now) if table.ready else None
            now, wake = (wake, None) if table.ready else (now, table.wake())
    assert rests == [1, 2, 4, 8, 8]
    table.lease("w", Seconds(now))
    last = table.failed(TaskId("s/0"), 6, "fault", "singular matrix", Seconds(now))
    assert last is not None
    assert [c.reason for c in last if isinstance(c, Verdict)] == ["failed 6 times, last with w: singular matrix"]


def test_a_handback_goes_to_the_front_and_counts_for_nothing() -> None:
    table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS["lifo"])
    for seq in range(3):
        table.submit(task_of(seq), seq, Seconds(0.0))
    table.lease("w", Seconds(0.0))
    table.submit(task_of(9), 9, Seconds(0.0))
    for attempt in range(1, 20):
        table.failed(TaskId("s/2"), attempt, "handback", "drain", Seconds(0.0))
        assert [c.task.start for c in table.lease("w", Seconds(0.0)) if isinstance(c, Grant)] == [2]


def test_a_beat_prolongs_the_lease_by_its_whole_time() -> None:
    table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS["fifo"])
    table.submit(task_of(0), 1, Seconds(0.0))
    table.lease("w", Seconds(0.0))
    for beat in range(1, 5):
        now = Seconds(beat * TTL * 0.9)
        assert not table.expire(now)
        assert table.beat(TaskId("s/0"), 1, now)
    assert table.expire(Seconds(4 * TTL * 0.9 + TTL)), "without a beat it is lost after its time"
    assert not table.beat(TaskId("s/0"), 1, Seconds(9 * TTL))


def test_a_lease_that_beats_does_not_keep_another_from_its_end() -> None:
    table = LeaseTable(TTL, FAULTS, LOSSES, ORDERINGS["fifo"])
    for number in range(2):
        table.submit(task_of(number), number, Seconds(0.0))
        table.lease(f"w{number}", Seconds(0.0))
    assert table.beat(TaskId("s/0"), 1, Seconds(1.0))
    assert table.wake() == TTL
    assert {change.key for change in table.expire(Seconds(TTL)) if isinstance(change, Keep)} == {"s/1"}
    assert table.wake() == TTL + 1.0
    table.check()
