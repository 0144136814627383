"""Random stories of the worked example of a component: every index is decided once, whatever is lost, doubled, late or killed."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beamtide.component.follow_up import FollowUp
from beamtide.config.models import PipelineConfig, SourceConfig
from beamtide.machine import Heard, Send, Unreachable
from beamtide.messages import Message, Ok, Refused
from beamtide.messages.base import Digest, PipelineName, ScanId, TaskId
from beamtide.messages.results import (
    DatasetHeader,
    Product,
    Products,
    ProductState,
    Results,
    ResultsRequest,
    StoreRequest,
    WatchRequest,
)
from beamtide.messages.tasks import InputFile, SubmitRequest, Task
from tests import how_to
from tests.stories.shelf import Shelf

threshold = how_to.module("A component", "beamtide_threshold")
threshold.MOST = 3  # so that portions are many
NOW, OTHER = Digest("now"), Digest("other")
CLOSER = PipelineConfig(pipeline="closer", modality="m", source=SourceConfig(kind="submitted"))
WANTED = threshold.ThresholdSettings(watch="survey/signal", above=0.5, submit="closer")


def result(product: Product, start: int, values: list[float] | None) -> tuple[StoreRequest, dict[str, np.ndarray]]:
    """One result of the survey; None: its task was abandoned."""
    stop = start + (len(values) if values is not None else 2)
    source = InputFile(root="raw", path=f"{product.scan}.h5", format="hdf5", first=start + 7, last=stop + 7)
    task = Task(
        id=TaskId(f"{product.key}/{start}"),
        scan=product.scan,
        pipeline=product.pipeline,
        modality="m",
        start=start,
        stop=stop,
        inputs=(source,),
        settings=product.settings,
    )
    if values is None:
        return StoreRequest(task=task, attempt=1, outcome="abandoned", reason="broken"), {}
    headers = (DatasetHeader(name="signal", units="1"),)
    return StoreRequest(task=task, attempt=1, outcome="result", datasets=headers), {"signal": np.array(values)}


class ThresholdStory(RuleBasedStateMachine):
    """A sink that only grows, a distributor that knows every task once, and a cable between them and the core."""

    @initialize()
    def begin(self) -> None:
        self.now, self.version = 0.0, 0
        self.kept: dict[Product, list[tuple[StoreRequest, dict[str, np.ndarray]]]] = {}
        self.versions: dict[Product, int] = {}
        self.known: dict[str, Task] = {}
        self.confirmed: set[str] = set()
        self.accepted: dict[int, set[str]] = {}
        """Number of a message of this process -> the tasks in it."""
        self.wire: list[Send] = []
        self.shelf = Shelf()
        self.start()

    def start(self) -> None:
        self.accepted.clear()
        self.wire.clear()  # a new process has new connections: no answer to the old one reaches it
        self.core = threshold.ThresholdMachine(self.shelf, WANTED, NOW, FollowUp(CLOSER, Digest("c" * 64), {}))
        self.tell([])

    def tell(self, events: list[Any], dies: bool = False) -> None:
        effects = self.shelf.batch(self.core, events, self.now)
        self.core.check()
        if dies:
            self.shelf.crash()
            self.start()
            return
        self.shelf.commit()
        for event in events:
            if isinstance(event, Heard) and isinstance(event.message, Ok):
                self.confirmed |= self.accepted.get(event.reply_to, set())
        for effect in effects:
            if isinstance(effect, Send):
                if isinstance(effect.message, SubmitRequest):
                    again = {task.id for task in effect.message.tasks} & self.confirmed
                    assert not again, f"submitted twice: {again}"
                self.wire.append(effect)

    def answer(self, sent: Send) -> tuple[Message, dict[str, np.ndarray]]:
        """What the sink or the distributor says."""
        match sent.message:
            case WatchRequest(after=after):
                states = [self.state(product) for product in self.kept if self.versions[product] > after]
                return Products(products=tuple(states), version=self.version), {}
            case ResultsRequest(product=product, start=start):
                found = [one for one in self.kept[product] if one[0].task.start >= start][:2]
                arrays = {f"{at}/{name}": array for at, (_, own) in enumerate(found) for name, array in own.items()}
                following = found[-1][0].task.stop if found else start
                return Results(results=tuple(request for request, _ in found), next=following), arrays
            case SubmitRequest(tasks=tasks):
                for task in tasks:
                    assert self.known.setdefault(task.id, task) == task, "one id, two tasks"
                self.accepted[sent.id] = {task.id for task in tasks}
                return Ok(), {}
        raise AssertionError(sent)

    def state(self, product: Product) -> ProductState:
        complete = self.kept[product][-1][0].task.stop
        return ProductState(product=product, modality="m", complete=complete, version=self.versions[product])

    def deliver(self, sent: Send, times: int = 1, dies: bool = False) -> None:
        message, arrays = self.answer(sent)
        self.tell([Heard(sent.peer, message, 99, sent.id, arrays)] * times, dies)

    @rule(
        scan=st.sampled_from("ab"),
        ours=st.booleans(),
        values=st.none() | st.lists(st.sampled_from([0.0, 1.0, 0.5, float("nan")]), min_size=1, max_size=5),
    )
    def grow(self, scan: str, ours: bool, values: list[float] | None) -> None:
        product = Product(scan=ScanId(scan), pipeline=PipelineName("survey"), settings=NOW if ours else OTHER)
        results = self.kept.setdefault(product, [])
        results.append(result(product, results[-1][0].task.stop if results else 0, values))
        self.version += 1
        self.versions[product] = self.version

    @rule(which=st.integers(0, 9), times=st.sampled_from([1, 1, 1, 2]), stays=st.booleans(), dies=st.booleans())
    def hear(self, which: int, times: int, stays: bool, dies: bool) -> None:
        """Answer any message that is under way; one that stays is answered again later."""
        if self.wire:
            place = which % len(self.wire)
            sent = self.wire[place] if stays else self.wire.pop(place)
            self.deliver(sent, times, dies and which == 0)

    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        if self.wire:
            self.wire.pop(which % len(self.wire))

    @rule(which=st.integers(0, 9), later=st.sampled_from([0.0, 2.0]))
    def refuse(self, which: int, later: float) -> None:
        """The distributor has no room, and did not take it."""
        submitted = [sent for sent in self.wire if isinstance(sent.message, SubmitRequest)]
        if submitted and later:
            sent = submitted[which % len(submitted)]
            self.wire.remove(sent)
            self.tell([Heard(sent.peer, Refused(reason="full", retry_after=later), 99, sent.id)])

    @rule(peer=st.sampled_from([threshold.SINK, threshold.DISTRIBUTOR]))
    def vanish(self, peer: bytes) -> None:
        self.tell([Unreachable(peer)])

    @rule()
    def kill(self) -> None:
        self.shelf.crash()
        self.start()

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell([])

    @invariant()
    def what_was_accepted_does_not_overlap(self) -> None:
        for scan in "ab":
            edges = [edge for task in sorted(self.of(scan), key=lambda task: task.start) for edge in (task.start, task.stop)]
            assert edges == sorted(edges)

    def of(self, scan: str) -> list[Task]:
        return [task for task in getattr(self, "known", {}).values() if task.scan == scan]

    def teardown(self) -> None:
        """With a good cable everything is decided, as one does it by hand."""
        if not hasattr(self, "kept"):
            return
        for _ in range(400):
            self.now += 1.0
            self.tell([])
            for sent in list(self.wire):
                self.wire.remove(sent)
                self.deliver(sent)
        for product, results in self.kept.items():
            if product.settings == NOW:
                self.judge(product, results)
        assert {task.scan for task in self.known.values()} == {one.scan for one in self.kept if one.settings == NOW}
        assert self.core.why() == ""

    def judge(self, product: Product, results: list[tuple[StoreRequest, dict[str, np.ndarray]]]) -> None:
        wanted: dict[int, str] = {}
        for request, arrays in results:
            for index in range(request.task.start, request.task.stop):
                value = arrays["signal"][index - request.task.start] if arrays else None
                below = "survey/signal is not above 0.5"
                wanted[index] = "survey/signal is not there: broken" if value is None else "" if value > 0.5 else below
        tasks = self.of(product.scan)
        assert {index: task.void for task in tasks for index in range(task.start, task.stop)} == wanted
        for task in tasks:
            frames = [(one.first, one.last) for one in task.inputs]
            assert frames == ([] if task.void else [(task.start + 7, task.stop + 7)])
            assert task.id == f"{product.scan}/closer/cccccccc/{task.start:06d}-{task.stop:06d}"


TestThresholdStory = ThresholdStory.TestCase
TestThresholdStory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_late_answer_to_the_portion_before_confirms_nothing() -> None:
    shelf, product = Shelf(), Product(scan=ScanId("a"), pipeline=PipelineName("survey"), settings=NOW)
    core = threshold.ThresholdMachine(shelf, WANTED, NOW, FollowUp(CLOSER, Digest("c" * 64), {}))
    request, arrays = result(product, 0, [0.0, 1.0] * 3)
    state = ProductState(product=product, modality="m", complete=6, version=1)

    def told(now: float, *events: Heard) -> list[Send]:
        return [effect for effect in shelf.batch(core, events, now) if isinstance(effect, Send)]

    told(0.0)
    (asked,) = [sent for sent in told(0.0, Heard(threshold.SINK, Products(products=(state,), version=1))) if sent.id]
    found = Heard(
        threshold.SINK, Results(results=(request,), next=6), 9, asked.id, {f"0/{name}": one for name, one in arrays.items()}
    )
    (first,) = [sent for sent in told(1.0, found) if sent.id]
    ok = Heard(threshold.DISTRIBUTOR, Ok(), 9, first.id)
    (second,) = [sent for sent in told(2.0, ok, ok) if sent.id]
    assert second.message != first.message
    told(3.0, ok)
    (again,) = [sent for sent in told(20.0) if isinstance(sent.message, SubmitRequest)]
    assert again == second
    told(21.0, Heard(threshold.DISTRIBUTOR, Ok(), 9, again.id))
    assert (core.progress()["submitted"], core.progress()["waiting"], core.why()) == (6, 0, "")
