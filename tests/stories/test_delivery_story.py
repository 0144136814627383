"""Random stories of distributor and buffer together, with a network that loses and doubles, workers that fail and vanish,
and crashes at any instant: every accepted task ends in exactly one verdict, and both sides come to agree on it."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamline_side.cores.buffer.buffer import BufferMachine
from beamline_side.cores.buffer.verdicts_to_distributor import verdicts_of
from beamline_side.cores.distributor.distributor import DistributorMachine
from beamtide.config.models import LeaseConfig
from beamtide.machine import Effect, Event, Forget, Heard, Keep, Machine, Send, Tick, link
from beamtide.messages.base import Message, Ok, ScanId, Seconds
from beamtide.messages.fences import FenceBroken, FencePending, FenceReached, FenceRequest
from beamtide.messages.results import StoreRequest
from beamtide.messages.tasks import CancelRequest as Cancel
from beamtide.messages.tasks import (
    Cause,
    Lease,
    LeaseRequest,
    PullRequest,
    StatusRequest,
    SubmitRequest,
    Task,
    TaskDone,
    TaskFailed,
    TaskStatus,
)
from tests.builders.sites import make_pipeline
from tests.builders.tasks import make_need, make_task
from tests.stories.shelf import Shelf

CONFIG = make_pipeline(buffer={"order": "lifo"})
LEASES = LeaseConfig(ttl=5.0, beat=1.0, faults=2, losses=3)
LINKS = {link("distributor"): "distributor", link("fence"): "fence", link("sorter"): "sorter"}


class DeliveryStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.ids = 0
        self.shelves = {"distributor": Shelf(), "buffer": Shelf()}
        self.machines: dict[str, Machine] = {}
        self.wire: list[tuple[str, Heard]] = []
        self.leases: list[tuple[bytes, Lease]] = []
        self.submitted: dict[str, Task] = {}
        self.accepted: set[str] = set()
        self.sorter: dict[str, str] = {}
        self.verdicts: Counter[str] = Counter()
        self.status: TaskStatus | None = None
        self.complete = 0
        for name in self.shelves:
            self.start(name)

    # --- the processes -----------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        shelf = self.shelves[name]
        shelf.now = dict(shelf.committed)
        self.machines[name] = (
            BufferMachine(CONFIG, LEASES, shelf) if name == "buffer" else DistributorMachine({"xrf": "xrf"}, shelf)
        )
        self.tell(name, Tick())

    def tell(self, name: str, event: Event, crash: bool = False) -> None:
        shelf = self.shelves[name]
        closed: list[str] = []
        effects = self.apply(name, event, closed) + self.apply(name, Tick(), closed)
        if crash:
            return self.start(name)
        shelf.committed = dict(shelf.now)
        self.verdicts.update(closed)
        self.machines[name].check()
        for effect in effects:
            if isinstance(effect, Send):
                self.post(name, effect)
        return None

    def apply(self, name: str, event: Event, closed: list[str]) -> list[Effect]:
        shelf = self.shelves[name]
        effects = self.machines[name].handle(event, Seconds(self.time))
        for effect in effects:
            if isinstance(effect, Keep):
                shelf.keep(effect.table, effect.key, effect.body)
                closed += [verdicts_of(effect.body)[-1].task] if effect.table == "closed" else []
            elif isinstance(effect, Forget):
                shelf.now.pop((effect.table, effect.key), None)
        return effects

    def post(self, sender: str, effect: Send) -> None:
        self.ids += 1
        if effect.peer in LINKS:
            self.wire.append((LINKS[effect.peer], Heard(sender.encode(), effect.message, self.ids, effect.reply_to)))
        elif effect.peer == b"buffer":
            self.wire.append(("buffer", Heard(link(sender), effect.message, self.ids, effect.reply_to)))
        else:
            self.wire.append((effect.peer.decode(), Heard(sender.encode(), effect.message, self.ids, effect.reply_to)))

    def say(self, to: str, message: Message, peer: bytes) -> None:
        self.ids += 1
        self.wire.append((to, Heard(peer, message, self.ids)))

    def arrive(self, to: str, heard: Heard, crash: bool = False) -> None:
        message = heard.message
        if to in self.machines:
            self.tell(to, heard, crash)
        elif isinstance(message, StoreRequest):
            self.sorter.setdefault(message.task.id, message.outcome)
            self.wire.append(("buffer", Heard(link("sorter"), Ok(note=message.task.id), 0, heard.id)))
        elif isinstance(message, FenceRequest):
            self.wire.append(("buffer", Heard(link("fence"), self.fence(message), 0, heard.id)))
        elif isinstance(message, Lease):
            self.leases.append((to.encode(), message))
        elif isinstance(message, TaskStatus):
            self.status = message
        elif isinstance(message, Ok) and to.startswith("submit "):
            self.accepted.add(to.removeprefix("submit "))

    def fence(self, question: FenceRequest) -> Message:
        scan, need = question.scan, question.need
        if scan == "broken":
            return FenceBroken(scan=scan, need=need, reason="the scan ended early")
        kind = FenceReached if self.complete >= need.upto else FencePending
        return kind(scan=scan, need=need, complete=self.complete)

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(
        scan=st.sampled_from(["a", "b", "broken"]),
        number=st.integers(0, 30),
        needs=st.sampled_from([(), (3,), (5, 9)]),
        void=st.sampled_from(["", "", "", "the frames never came"]),
    )
    def submit(self, scan: str, number: int, needs: tuple[int, ...], void: str) -> None:
        task_id = f"{scan}/{number}"
        fences = tuple(make_need(upto, f"p{upto}") for upto in needs)
        task = make_task(number, scan=scan, id=task_id, pipeline="xrf", modality="xrf", needs=fences, void=void)
        task = self.submitted.setdefault(task_id, task)
        self.say("distributor", SubmitRequest(tasks=(task, task)), f"submit {task_id}".encode())

    @rule(scan=st.sampled_from(["a", "b"]))
    def cancel(self, scan: str) -> None:
        self.say("distributor", Cancel(scan=ScanId(scan)), b"operator")

    @rule(worker=st.sampled_from(["w1", "w2", "w3"]), wait=st.sampled_from([0.0, 30.0]))
    def ask(self, worker: str, wait: float) -> None:
        self.say("buffer", LeaseRequest(worker=worker, job="j", wait=wait), f"{worker} {self.ids}".encode())

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), stored=st.booleans())
    def finish(self, data: st.DataObject, stored: bool) -> None:
        peer, lease = data.draw(st.sampled_from(self.leases))
        self.sorter.setdefault(lease.task.id, "result")
        if stored:
            self.say("buffer", TaskDone(worker=peer.decode()[:2], task=lease.task.id, attempt=lease.attempt), peer)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), cause=st.sampled_from(["fault", "infra", "handback"]))
    def fail(self, data: st.DataObject, cause: Cause) -> None:
        peer, lease = data.draw(st.sampled_from(self.leases))
        failed = TaskFailed(worker=peer.decode()[:2], task=lease.task.id, attempt=lease.attempt, cause=cause, reason="why")
        self.say("buffer", failed, peer)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), fate=st.sampled_from(["arrive", "arrive", "arrive", "lost", "doubled", "crash"]))
    def deliver(self, data: st.DataObject, fate: str) -> None:
        at = data.draw(st.integers(0, len(self.wire) - 1))
        letter = self.wire[at] if fate == "doubled" else self.wire.pop(at)
        if fate != "lost":
            self.arrive(*letter, crash=fate == "crash")

    @rule()
    def flow(self) -> None:
        """A stretch of fine weather."""
        for _ in range(20):
            if self.wire:
                self.arrive(*self.wire.pop(0))

    @rule(name=st.sampled_from(["buffer", "distributor"]))
    def restart(self, name: str) -> None:
        self.start(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 20.0]), more=st.sampled_from([0, 3]))
    def wait(self, seconds: float, more: int) -> None:
        self.time += seconds
        self.complete += more
        for name in self.machines:
            self.tell(name, Tick())

    @invariant()
    def one_verdict(self) -> None:
        assert all(count == 1 for count in self.verdicts.values()), "a task got two verdicts"

    def teardown(self) -> None:
        """The sun comes out: all that was accepted must come to its end within a bounded time."""
        self.complete = 100
        for round_ in range(200):
            for _ in range(len(self.wire) + 5):
                if self.wire:
                    self.arrive(*self.wire.pop(0))
            self.leases, held = [], self.leases
            for peer, lease in held:
                self.sorter.setdefault(lease.task.id, "result")
                done = TaskDone(worker=peer.decode()[:2], task=lease.task.id, attempt=lease.attempt)
                self.tell("buffer", Heard(peer, done, 1))
            self.say("buffer", LeaseRequest(worker=f"good {round_}", job="j", wait=0.0), f"good {round_}".encode())
            self.time += 1.0
            for name in self.machines:
                self.tell(name, Tick())
            if round_ > 20 and not self.left():
                break
        assert not self.left(), f"left behind: {self.left()}"
        self.tell("distributor", Heard(b"operator", StatusRequest(), 1))
        while self.wire:
            self.arrive(*self.wire.pop(0)) if not isinstance(self.wire[0][1].message, PullRequest) else self.wire.pop(0)
        tallies = self.status.tallies if self.status else ()
        assert sum(tally.submitted for tally in tallies) == len(self.verdicts) >= len(self.accepted)
        assert sum(tally.results + tally.empty + tally.abandoned for tally in tallies) == len(self.verdicts)
        assert self.accepted <= self.verdicts.keys() <= self.sorter.keys(), "an index would be waited for in vain"

    def left(self) -> list[tuple[str, str]]:
        tables = ("tasks", "outbox", "closed", "journal", "ahead")
        return [key for shelf in self.shelves.values() for key in shelf.committed if key[0] in tables]


TestDeliveryStory = DeliveryStory.TestCase
TestDeliveryStory.settings = settings(max_examples=40, stateful_step_count=60)
