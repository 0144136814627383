"""Who should stay at a queue and who should leave: what the autoscaler says to a buffer, and what workers hear of it."""

from beamline_side.cores.buffer.buffer import BufferMachine
from beamline_side.cores.buffer.jobs_heard import BELIEVED, HEARD, MARGIN
from beamline_side.cores.buffer.rates import Rates
from beamtide.config.models import LeaseConfig
from beamtide.machine import Heard, Send, Tick
from beamtide.messages.base import Message, PipelineName, Seconds
from beamtide.messages.scaling import BufferGauge, GaugeRequest, PipelineRequest, StartStages
from beamtide.messages.tasks import Entry, Lease, LeaseRequest, NoTask, Pulled, Task, TaskDone
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_task
from tests.stories.shelf import Shelf


class Queue:
    """A buffer, and a clock."""

    def __init__(self) -> None:
        config = make_pipeline("p")
        self.buffer, self.now, self.number, self.made = BufferMachine(config, LeaseConfig(), Shelf()), 0.0, 0, 0

    def says(self, message: Message, who: bytes = b"w", at: float | None = None) -> list[tuple[bytes, Message]]:
        self.now = self.now if at is None else at
        self.number += 1
        effects = self.buffer.handle(Heard(who, message, self.number), Seconds(self.now))
        effects += self.buffer.handle(Tick(), Seconds(self.now))
        return [(one.peer, one.message) for one in effects if isinstance(one, Send) and not one.peer.startswith(b">")]

    def wait_until(self, at: float) -> list[tuple[bytes, Message]]:
        self.now = at
        effects = self.buffer.handle(Tick(), Seconds(at))
        return [(one.peer, one.message) for one in effects if isinstance(one, Send) and not one.peer.startswith(b">")]

    def tasks(self, count: int, at: float) -> list[tuple[bytes, Message]]:
        first, self.made = self.made + 1, self.made + count
        made = [task(number) for number in range(first, first + count)]
        entries = tuple(Entry(seq=first + k, task=task) for k, task in enumerate(made))
        return self.says(Pulled(pipeline=PipelineName("p"), entries=entries), b">distributor", at)


def task(number: int) -> Task:
    return make_task(number, id=f"t{number}")


def ask(worker: str, job: str, wait: float = 2.0, left: float = 0.0) -> LeaseRequest:
    return LeaseRequest(worker=worker, job=job, wait=wait, left=left)


def test_as_many_idle_workers_stay_as_are_wanted_and_all_linger_while_a_scan_is_announced() -> None:
    queue = Queue()
    assert queue.says(PipelineRequest(keep=1, linger=20.0, wait=10.0), b"scaler", 0.0) == []
    queue.says(ask("a", "1"), b"a", 1.0)
    queue.says(ask("b", "2"), b"b", 1.1)
    told = dict(queue.wait_until(3.2))
    assert told[b"a"] == NoTask(linger=20.0)
    assert told[b"b"].linger > 1e6
    queue.says(ask("a", "1"), b"a", BELIEVED + 1.0)
    assert queue.wait_until(BELIEVED + 4.0) == [(b"a", NoTask())], "the autoscaler is gone, and so are its wishes"


def test_workers_of_a_job_that_leaves_get_no_further_task() -> None:
    queue = Queue()
    queue.says(ask("a", "1"), b"a", 0.0)
    queue.says(ask("b", "2"), b"b", 0.0)
    assert [peer for peer, message in queue.says(PipelineRequest(leaving=("1",), wait=1.0), b"scaler") if message.leave] == [b"a"]
    told = dict(queue.says(ask("c", "1"), b"c"))
    assert isinstance(told[b"c"], NoTask)
    assert told[b"c"].leave
    assert [type(message) for _, message in queue.tasks(1, 0.5)] == [Lease]


def test_a_job_without_time_for_a_task_gets_none() -> None:
    queue = Queue()
    queue.tasks(2, 0.0)
    (lease,) = queue.says(ask("a", "1"), b"a")
    queue.says(TaskDone(worker="a", task=lease[1].task.id, attempt=1, seconds=100.0), b"a")
    short = queue.says(ask("b", "1", left=120.0 + MARGIN - 1), b"b")
    assert short[0][1].leave
    assert "124 s are left, a task takes up to 100 s" in short[0][1].reason
    assert isinstance(queue.says(ask("b", "1", left=120.0 + MARGIN + 1), b"b")[0][1], Lease)


def test_a_jump_of_the_queue_is_told_at_once_and_nothing_else_is() -> None:
    queue = Queue()
    assert queue.says(PipelineRequest(ready=4, wait=1.0), b"scaler", 0.0) == []
    assert queue.tasks(8, 0.1) == []
    ((peer, gauge),) = queue.tasks(1, 0.2)
    assert (peer, gauge.ready) == (b"scaler", 9)
    queue.says(PipelineRequest(ready=9, wait=1.0), b"scaler", 0.3)
    ((_, gauge),) = queue.wait_until(1.31)
    assert isinstance(gauge, BufferGauge)


def test_the_gauge_tells_jobs_apart_and_remembers_those_that_came_and_went() -> None:
    queue = Queue()
    queue.says(ask("a", "1"), b"a", 0.0)
    queue.tasks(1, 0.0)
    queue.says(ask("b", "1"), b"b")
    queue.says(ask("c", "2", wait=0.0), b"c")
    ((_, gauge),) = queue.says(GaugeRequest(), b"x")
    assert gauge.jobs == {"1": (1, 1), "2": (0, 0)}
    queue.wait_until(HEARD + 0.1)
    ((_, gauge),) = queue.says(GaugeRequest(), b"x")
    assert "2" not in gauge.jobs


def test_the_gauge_tells_how_jobs_started() -> None:
    queue = Queue()
    started = StartStages(image=0.3, imports=0.4, kernel=0.2)
    queue.says(LeaseRequest(worker="a", job="1", wait=2.0, stages=started), b"a", 0.0)
    queue.says(ask("b", "2"), b"b")
    ((_, gauge),) = queue.says(GaugeRequest(), b"x")
    assert gauge.starts == {"1": started}, "a worker that does not tell (an older one) is no start"
    queue.wait_until(HEARD + 0.1)
    ((_, gauge),) = queue.says(GaugeRequest(), b"x")
    assert gauge.starts == {}


def test_percentiles_of_the_last_tasks() -> None:
    rates = Rates()
    assert rates.percentile(95) == 0.0
    for seconds in range(1, 201):
        rates.served(float(seconds))
    assert (rates.percentile(50), rates.percentile(99)) == (151.0, 199.0)
