"""What must hold, whatever happens: judged at every event, every commit and every send, and once more at the end."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np

from beamline_side.cores.buffer.open_task import open_task_of
from beamline_side.cores.buffer.verdicts_to_distributor import verdicts_of
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamline_side.cores.distributor.tallies import KnownTask
from beamline_side.cores.sink.product_ledger import Record
from beamline_side.cores.sink.sink import SinkMachine
from beamtide import codec
from beamtide.machine import Arrays, Effect, Event, Forget, Heard, Keep, Send
from beamtide.messages import results as r
from beamtide.messages.base import Message, Ok, PipelineName, ScanId, Seconds
from beamtide.messages.fences import FenceReached
from beamtide.messages.metadata import ScanEnded, ScanStarted
from beamtide.messages.tasks import (
    Beat,
    Closed,
    Lease,
    Pulled,
    PullRequest,
    Stale,
    StatusRequest,
    SubmitRequest,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from tests.builders.tasks import make_product
from tests.world.actors import SETTINGS, Source, arrays_of, result_of
from tests.world.world import Process, World

UNDER_WAY = ("tasks", "doom", "outbox", "correction", "closed", "journal", "ahead", "place")
"""Tables that are empty when all is done."""


@dataclass(slots=True)
class Watchful:
    """Sees everything, believes nothing: what was committed where, and who holds which attempt."""

    world: World
    asked: dict[int, Message] = field(default_factory=dict)
    holders: dict[tuple[str, int], str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    over: set[tuple[str, int]] = field(default_factory=set)
    """Attempts whose end was accepted."""
    closed: dict[str, Closed] = field(default_factory=dict)
    """The newest verdict of each task: of a retried one, that of its highest generation."""
    pages: dict[tuple[str, str], tuple[Closed, ...]] = field(default_factory=dict)
    """The rows in which a buffer keeps verdicts."""
    stored: dict[str, bytes] = field(default_factory=dict)
    corrected: dict[str, bytes] = field(default_factory=dict)
    in_sink: dict[str, Record] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    known: dict[str, KnownTask] = field(default_factory=dict)
    stale: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    """How often which thing happened, to know that the stories tell something."""
    questions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a component asked what, of its own accord."""

    # --- while it runs -----------------------------------------------------------------------------------------------

    def delivered(self, process: Process, event: Event) -> None:
        """Note what was asked, and whether a worker's attempt is the one that counts."""
        assert isinstance(event, Heard)
        self.asked[event.id] = event.message
        self.seen[type(event.message).__name__] += 1
        if isinstance(event.message, Beat | TaskDone | TaskFailed):
            row = process.shelf.now.get(("tasks", event.message.task))
            open_task = open_task_of(row) if row else None
            self.stale = not (open_task and open_task.worker and open_task.attempt == event.message.attempt)

    def handled(self, process: Process, event: Event, effects: list[Effect]) -> None:
        """A report of an attempt that does not count changes nothing."""
        if not isinstance(event, Heard) or not isinstance(event.message, Beat | TaskDone | TaskFailed):
            return
        said = event.message
        answer = next(effect.message for effect in effects if isinstance(effect, Send) and effect.reply_to == event.id)
        if not self.stale:
            if isinstance(answer, Ok) and not isinstance(said, Beat):
                self.over.add((said.task, said.attempt))
            return
        repeated = isinstance(said, TaskFailed) or (isinstance(said, TaskDone) and (said.task, said.attempt) in self.over)
        assert isinstance(answer, Stale) or repeated, f"{process.name} took a stale {said}"
        for effect in effects:
            if isinstance(effect, Keep) and effect.table == "closed":
                verdict = verdicts_of(effect.body)[-1]
                assert verdict.task != said.task or verdict.outcome == "abandoned", f"a stale {said} closed its task"
            elif isinstance(effect, Keep) and (effect.table, effect.key) == ("tasks", said.task) and isinstance(said, TaskFailed):
                assert said.reason not in open_task_of(effect.body).note, f"a stale {said} was counted"

    def committed(self, process: Process, effects: list[Effect]) -> None:
        """Rows that may be written once, and rows that may go only when somebody else has them."""
        kind = process.name.partition(".")[0]
        for effect in effects:
            if isinstance(effect, Keep):
                self._kept(process.name, kind, effect)
            elif isinstance(effect, Forget) and kind == "sorter" and effect.table == "payload":
                assert effect.key in self.in_sink, f"{effect.key} is in nobody's hands"
            elif isinstance(effect, Forget) and kind == "sorter" and effect.table == "corrected":
                correction = codec.unpack(self.corrected[effect.key]).message
                assert isinstance(correction, r.StoreRequest)
                there = self.in_sink[effect.key]
                assert there.outcome != "abandoned" or there.generation >= correction.task.generation, "a correction is lost"
            elif isinstance(effect, Forget) and kind == "buffer" and effect.table == "outbox":
                again = ("tasks", effect.key) in process.shelf.now
                assert again or effect.key in self.stored, f"the abandoned {effect.key} is in nobody's hands"
            elif isinstance(effect, Forget) and kind == "distributor" and effect.table == "known":
                told = self.known[effect.key]
                assert told.outcome in ("", "abandoned"), f"{effect.key} got two verdicts in the distributor"
                verdict = self.closed[effect.key]
                self.known[effect.key] = msgspec.structs.replace(told, outcome=verdict.outcome, generation=verdict.generation)
            elif isinstance(effect, Forget) and kind == "buffer" and effect.table == "closed":
                for task in {verdict.task for verdict in self.pages.pop((process.name, effect.key))}:
                    told, verdict = self.known[task], self.closed[task]
                    assert told.outcome, f"the verdict of {task} is in nobody's hands"
                    assert told.outcome != "abandoned" or told.generation >= verdict.generation, "a newer verdict is lost"

    def _kept(self, name: str, kind: str, row: Keep) -> None:
        match kind, row.table:
            case "buffer", "closed":
                *before, verdict = page = verdicts_of(row.body)
                assert tuple(before) == self.pages.get((name, row.key), ()), "a page lost a verdict"
                self.pages[name, row.key] = page
                was = self.closed.get(verdict.task)
                assert was is None or _corrects(was, verdict), f"{verdict.task} got two verdicts in the buffer"
                self.closed[verdict.task] = verdict
                self.seen["retried"] += verdict.generation > 0
            case "sorter", "payload":
                assert row.key not in self.stored, f"{row.key} was stored twice"
                self.stored[row.key] = row.body
            case "sorter", "corrected":
                self.corrected[row.key] = b"".join(row.body)
            case "sink", "result":
                self._taken(row)
            case "distributor", "known":
                known = msgspec.msgpack.decode(row.body, type=KnownTask)
                was = self.known.get(row.key)
                assert bool(known.outcome) == (was is not None), f"{row.key} was accepted twice"
                twice = was is not None and was.outcome and not _corrects(was, known)
                assert not twice, f"{row.key} got two verdicts in the distributor"
                self.known[row.key] = known

    def _taken(self, row: Keep) -> None:
        """An index comes to the sink once; only a hole gives way, to the same range in a higher generation."""
        record = msgspec.msgpack.decode(row.body, type=Record)
        before = self.in_sink.get(record.task)
        assert (before is None) == (row.key not in self.keys), f"{row.key} is another task's"
        if before is not None:
            same = (before.start, before.stop) == (record.start, record.stop)
            assert same, f"{row.key} was corrected by another range"
            assert _corrects(before, record), f"{row.key} came to the sink twice"
            self.seen["correction"] += record.outcome != "abandoned"
        self.keys.add(row.key)
        self.in_sink[record.task] = record

    def sent(self, process: Process, send: Send, to: str) -> None:
        """What is promised in a message is on the disk of who promises it, when it leaves."""
        disk, request = process.shelf.committed, self.asked.get(send.reply_to)
        if isinstance(send.message, Ok):
            self._promised(disk, request)
        self.seen[type(send.message).__name__] += 1
        self.questions[process.name, type(send.message).__name__] += send.reply_to == 0
        match send.message:
            case Lease() as lease:
                self._granted(process, lease, request)
            case r.Released(task=task_id):
                assert task_id in self.in_sink, f"{task_id}: released, but not on disk"
            case Pulled(confirmed=tasks):
                assert all(self.known[task_id].outcome for task_id in tasks), "a verdict was confirmed that is not on disk"
            case PullRequest(after=after):
                cursor = disk.get(("cursor", "cursor"))
                assert after == (msgspec.msgpack.decode(cursor, type=int) if cursor else 0), "confirms what is not on disk"
            case FenceReached(scan=scan_id, need=need):
                assert self.complete(scan_id, need.pipeline) >= need.upto, "a fence opened too early"

    def _promised(self, disk: dict[tuple[str, str], bytes], request: Message | None) -> None:
        match request:
            case r.StoreRequest(task=task):
                assert ("payload", task.id) in disk or task.id in self.in_sink, f"{task.id}: Ok, but not stored"
            case SubmitRequest(tasks=tasks):
                there = (("known", task.id) in disk or self.known[task.id].outcome for task in tasks)
                assert all(there), "accepted, but not on disk"
            case TaskDone(task=task_id):
                assert task_id in self.closed, f"{task_id}: done, but not on disk"
                assert ("tasks", task_id) not in disk, f"{task_id}: done, but still in the queue"
            case ScanStarted(scan=scan):
                assert ("scan", scan.id) in disk, "started, but not on disk"
            case ScanEnded(scan=scan_id):
                assert b"ended" in disk["scan", scan_id], "ended, but not on disk"

    def _granted(self, process: Process, lease: Lease, request: Message | None) -> None:
        task, worker = lease.task, getattr(request, "worker", "")
        row = process.shelf.committed.get(("tasks", task.id))
        assert row is None or open_task_of(row).attempt >= lease.attempt, "an attempt number that is not on disk"
        assert not task.void, f"{task.id} has no frames, and was leased"
        for need in task.needs:
            assert self.complete(task.scan, need.pipeline) >= need.upto, f"{task.id} was leased before its fence"
        holder = self.holders.setdefault((task.id, lease.attempt), worker)
        assert holder == worker, f"attempt {lease.attempt} of {task.id} has two holders: {holder}, {worker}"
        assert lease.attempt >= self.newest.get(task.id, 0), "an old attempt was handed out"
        self.newest[task.id] = lease.attempt
        self.seen["second attempt"] += lease.attempt > 1

    def complete(self, scan: ScanId, pipeline: PipelineName) -> int:
        """Return up to which index the disk of the sink has verdicts."""
        ends = {
            one.start: one.stop for one in self.in_sink.values() if (one.product.scan, one.product.pipeline) == (scan, pipeline)
        }
        at = 0
        while at in ends:
            at = ends[at]
        return at

    # --- at the end --------------------------------------------------------------------------------------------------

    def left(self) -> list[str]:
        """Return what is still under way."""
        return [
            f"{name}: {table} {key}"
            for name, process in self.world.processes.items()
            for table, key in process.shelf.committed
            if table in UNDER_WAY
        ]

    def judge_silence(self, seconds: float) -> None:
        """When nothing happens, a component asks each of its long questions about once in two seconds, not more."""
        self.questions.clear()
        self.world.run(self.world.now + seconds)
        many = {who: count for who, count in self.questions.items() if count > seconds / 2 + 2}
        assert not many, f"questions have multiplied: {many}"

    def judge(self, sources: list[Source]) -> None:
        """Every task has one verdict, every index is at the sink once, and nothing is there that nobody computed."""
        tasks = {task.id: task for source in sources for task in source.tasks}
        assert self.known.keys() == self.closed.keys() == self.stored.keys() == self.in_sink.keys() == tasks.keys()
        assert all(known.outcome for known in self.known.values()), "a task without a verdict"
        self._judge_distributor(len(tasks))
        for source in sources:
            for pipeline in "pq":
                self._judge_product(source, pipeline)

    def _judge_distributor(self, count: int) -> None:
        machine = DistributorMachine({"p": "p", "q": "q"}, self.world.processes["distributor"].shelf)
        effects = machine.handle(Heard(b"checker", StatusRequest(), 1), Seconds(0.0))
        (status,) = [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, TaskStatus)]
        sums = [(one.submitted, one.results + one.empty + one.abandoned) for one in status.tallies]
        assert sum(one for one, _ in sums) == sum(one for _, one in sums) == count, f"tallies do not add up: {status}"

    def _judge_product(self, source: Source, pipeline: str) -> None:
        product = make_product(source.scan.id, pipeline, SETTINGS)
        machine = SinkMachine(self.world.processes["sink"].shelf)
        at, found = 0, 0
        while at < source.points:
            request = Heard(b"checker", r.ResultsRequest(product=product, start=at, limit=400), 1)
            (send,) = [one for one in machine.handle(request, Seconds(0.0)) if isinstance(one, Send)]
            assert isinstance(send.message, r.Results), send.message
            for position, result in enumerate(send.message.results):
                assert result.task.start == at, f"{product.scan}/{pipeline}: index {at} is missing or doubled"
                arrays = {name.partition("/")[2]: one for name, one in send.arrays.items() if name.startswith(f"{position}/")}
                self._judge_result(result, arrays)
                at, found = result.task.stop, found + 1
            assert send.message.results, f"{product.scan}/{pipeline}: nothing from index {at} on"
        assert at == source.points
        assert found == sum(task.pipeline == pipeline for task in source.tasks)

    def _judge_result(self, result: r.StoreRequest, arrays: Arrays) -> None:
        task, told = result.task, self.known[result.task.id].outcome
        if result.outcome == "abandoned":
            assert result.reason, f"{task.id} is a hole without a reason"
            assert told == "abandoned"
            self.seen["hole"] += 1
            assert not arrays
            return
        worker = self.holders.get((task.id, result.attempt))
        assert worker, f"{task.id}: nobody ever had attempt {result.attempt}"
        assert result == result_of(task, result.attempt, worker), "not what the worker said"
        assert told == result.outcome, f"{task.id} is {result.outcome} at the sink and {told} at the distributor"
        self.seen["result of an older attempt"] += result.attempt < self.newest[task.id]
        expected = arrays_of(task, result.attempt) if result.outcome == "result" else {}
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert np.asarray(arrays[name]).tobytes() == np.asarray(array).tobytes(), f"{task.id}: {name} has changed"


def _corrects(before: Closed | KnownTask | Record, after: Closed | KnownTask | Record) -> bool:
    return before.outcome == "abandoned" and after.generation > before.generation
