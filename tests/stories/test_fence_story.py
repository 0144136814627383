"""Random stories of the fence: its answers follow from what the sink and the metadata server said last."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from beamline_side.cores.fence import METADATA, SINK, FenceMachine
from beamtide.machine import Effect, Heard, Send, Tick, Unreachable
from beamtide.messages.base import ScanId, Seconds
from beamtide.messages.fences import FenceBroken, FencePending, FenceReached, FenceRequest
from beamtide.messages.metadata import Scans, ScansRequest
from beamtide.messages.results import Products, ProductState, WatchRequest
from tests.builders.scans import make_scan, make_state
from tests.builders.tasks import make_need, make_product

SCANS = st.sampled_from("ab")


class FenceStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.version = self.scan_version = self.ids = 0
        self.complete = {"a": 0, "b": 0}
        self.ended: dict[str, int] = {}
        self.waiting: dict[tuple[bytes, str], tuple[int, int]] = {}
        self.machine = FenceMachine(frozenset({"positions"}))
        self.tell(Tick())

    def tell(self, event: Heard | Tick | Unreachable) -> list[Effect]:
        effects = self.machine.handle(event, Seconds(self.now))
        for effect in effects:
            if isinstance(effect, Send) and effect.peer not in (SINK, METADATA):
                self.judge(effect)
        return effects

    def judge(self, sent: Send) -> None:
        answer = sent.message
        assert isinstance(answer, FenceReached | FenceBroken | FencePending)
        upto, question = self.waiting.pop((sent.peer, answer.scan))
        assert question == sent.reply_to
        if isinstance(answer, FenceReached):
            assert answer.complete == self.complete[answer.scan] >= upto
        elif isinstance(answer, FenceBroken):
            assert self.ended[answer.scan] < upto > self.complete[answer.scan]
        else:
            assert self.complete[answer.scan] < upto <= self.ended.get(answer.scan, upto)

    @rule(scan=SCANS, peer=st.sampled_from([b"x", b"y"]), upto=st.integers(1, 20), wait=st.sampled_from([0.0, 10.0]))
    def ask(self, scan: str, peer: bytes, upto: int, wait: float) -> None:
        self.ids += 1
        self.waiting[peer, scan] = (upto, self.ids)
        need = make_need(upto)
        self.tell(Heard(peer, FenceRequest(scan=ScanId(scan), need=need, wait=wait), self.ids))

    @rule(scan=SCANS, more=st.integers(1, 8), settings=st.sampled_from("de"), lost=st.booleans())
    def grow(self, scan: str, more: int, settings: str, lost: bool) -> None:
        """The newest product counts, also one with other settings that begins anew."""
        if lost:
            self.version = 0
            self.machine = FenceMachine(frozenset({"positions"}))
            self.complete = {"a": 0, "b": 0}
            self.ended.clear()
            self.waiting.clear()
        self.version += 1
        self.complete[scan] = self.complete[scan] + more if settings == "d" else more
        product = make_product(scan, "positions", settings)
        state = ProductState(product=product, modality="m", complete=self.complete[scan], version=self.version)
        self.tell(Heard(SINK, Products(products=(state,), version=self.version)))

    @rule(scan=SCANS, points=st.integers(1, 20))
    def end(self, scan: str, points: int) -> None:
        self.scan_version += 1
        self.ended[scan] = points
        state = make_state("ended", points, self.scan_version, scan=make_scan(scan, (20,)))
        self.tell(Heard(METADATA, Scans(scans=(state,), version=self.scan_version)))

    @rule(peer=st.sampled_from([b"x", b"y"]))
    def vanish(self, peer: bytes) -> None:
        self.tell(Unreachable(peer))
        self.waiting = {key: value for key, value in self.waiting.items() if key[0] != peer}

    @rule(seconds=st.sampled_from([1.0, 10.0, 13.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        asked = [effect.message for effect in self.tell(Tick()) if isinstance(effect, Send)]
        if seconds > 12:
            assert any(isinstance(message, WatchRequest) for message in asked), "a lost answer stops the fence for ever"
            assert any(isinstance(message, ScansRequest) for message in asked)

    @invariant()
    def all_wait_that_should(self) -> None:
        self.machine.check()
        assert self.machine.progress()["waiting"] == len(self.waiting)


TestFenceStory = FenceStory.TestCase
TestFenceStory.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_pipeline_that_does_not_exist_is_said_at_once() -> None:
    need = make_need(3, "pozitions")
    effects = FenceMachine(frozenset({"xrf"})).handle(Heard(b"x", FenceRequest(scan=ScanId("s"), need=need), 7), Seconds(0.0))
    (answer,) = [e.message for e in effects if isinstance(e, Send) and e.peer == b"x"]
    assert isinstance(answer, FenceBroken)
    assert "pozitions" in answer.reason
    assert "xrf" in answer.reason


def test_a_sink_that_lost_its_history_is_read_anew() -> None:
    machine = FenceMachine(frozenset({"positions"}))
    machine.handle(Heard(SINK, Products(products=(), version=50)), Seconds(0.0))
    effects = machine.handle(Heard(SINK, Products(products=(), version=3)), Seconds(1.0))
    assert [e.message.after for e in effects if isinstance(e, Send) and isinstance(e.message, WatchRequest)] == [0]


def test_a_need_that_names_settings_is_not_met_by_those_of_before() -> None:
    machine = FenceMachine(frozenset({"positions"}))
    for version, (digest, complete) in enumerate([("old", 20), ("new", 5)], 1):
        product = make_product("s", "positions", digest)
        state = ProductState(product=product, modality="m", complete=complete, version=version)
        machine.handle(Heard(SINK, Products(products=(state,), version=version)), Seconds(0.0))
    answers = {}
    for number, settings_wanted in enumerate(("new", "old", "")):
        need = make_need(9, settings=settings_wanted)
        effects = machine.handle(Heard(b"x", FenceRequest(scan=ScanId("s"), need=need), number), Seconds(0.0))
        answers[settings_wanted] = [e.message for e in effects if isinstance(e, Send) and e.peer == b"x"]
    assert answers["new"] == answers[""] == []
    assert isinstance(answers["old"][0], FenceReached)
    assert machine.progress()["waiting"] == 2
    machine.check()
