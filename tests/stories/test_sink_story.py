"""Random stories of the sink against a plain dictionary: watching, fetching, merging, paging, holes, restarts."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from beamline_side.cores.sink.sink import SinkMachine
from beamtide.machine import Arrays, Effect, Event, Heard, Send, Tick, Unreachable
from beamtide.messages import results as r
from beamtide.messages.base import Message, Refused, ScanId, Seconds, Unsupported
from beamtide.messages.metadata import ScansRequest
from tests.builders.tasks import make_product, make_task
from tests.stories.shelf import Shelf

HEADERS = (
    r.DatasetHeader(name="value", units="1"),
    r.DatasetHeader(name="count", units="counts"),
    r.DatasetHeader(name="sum", units="counts", per="scan", merge="sum"),
    r.DatasetHeader(name="max", units="counts", per="scan", merge="max"),
    r.DatasetHeader(name="first", units="keV", per="scan", merge="first"),
)
SCANS = st.sampled_from("ab")
KINDS = st.sampled_from(["result"] * 5 + ["empty", "abandoned", "other shape", "missing", "too short", "other merge"])


def product_of(scan: str) -> r.Product:
    return make_product(scan, "xrf")


def request_of(scan: str, start: int, stop: int, outcome: r.Outcome = "result", attempt: int = 1) -> r.StoreRequest:
    task = make_task(start, stop, scan=scan, pipeline="xrf")
    reason = "the frames never came" if outcome == "abandoned" else ""
    datasets = HEADERS if outcome == "result" else ()
    return r.StoreRequest(task=task, attempt=attempt, outcome=outcome, reason=reason, datasets=datasets)


def truth(name: str, index: int) -> NDArray[Any]:
    """What one index contributes."""
    match name:
        case "value":
            return np.array([index / 7, -index / 3])
        case "count":
            return np.array(index % 5 + 1, np.int32)
        case "first":
            return np.array([1.5, 2.5])
    return np.array([index * 37 % 251, index * 11 % 83], np.uint8)


def arrays_of(start: int, stop: int) -> dict[str, NDArray[Any]]:
    """What a worker makes of a range."""
    rows = {name: np.stack([truth(name, index) for index in range(start, stop)]) for name in ("value", "count", "sum")}
    return {
        "value": rows["value"],
        "count": rows["count"],
        "sum": rows["sum"].sum(axis=0, dtype=np.uint32),
        "max": rows["sum"].max(axis=0),
        "first": truth("first", 0),
    }


class CatalogueStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.ids = 0
        self.taken = 0
        self.shelf = Shelf()
        self.machine = SinkMachine(self.shelf)
        self.kept: dict[str, dict[int, tuple[int, str, str, int]]] = {"a": {}, "b": {}}
        """Scan -> first index -> (stop, outcome, reason, version)."""
        self.formed: set[str] = set()
        self.watching: dict[tuple[bytes, int], tuple[r.WatchRequest, float]] = {}

    # --- the process -------------------------------------------------------------------------------------------------

    def tell(self, events: list[Event]) -> list[Effect]:
        effects = self.shelf.batch(self.machine, events, self.time)
        self.shelf.commit()
        self.machine.check()
        for effect in effects:
            if isinstance(effect, Send) and effect.peer in (b"x", b"y"):
                self.judge(effect)
        return effects

    def ask(self, message: Message, arrays: Arrays | None = None) -> tuple[Message, Arrays]:
        self.ids += 1
        effects = self.tell([Heard(b"me", message, self.ids, 0, arrays or {})])
        (answer,) = [one for one in effects if isinstance(one, Send) and one.peer == b"me" and one.reply_to == self.ids]
        return answer.message, answer.arrays

    def restart(self) -> None:
        self.shelf.crash()
        self.machine = SinkMachine(self.shelf)
        self.machine.check()
        self.watching.clear()

    def judge(self, sent: Send) -> None:
        """A watcher gets the newest state of all that is newer than what he knows, at once, or nothing in the end."""
        request, deadline = self.watching.pop((sent.peer, sent.reply_to))
        answer = sent.message
        assert isinstance(answer, r.Products)
        assert answer.version == self.taken
        assert list(answer.products) == self.news(request)
        assert answer.products or self.time >= deadline, "told too early that there is nothing"

    def news(self, request: r.WatchRequest) -> list[r.ProductState]:
        states = [self.state(scan) for scan in self.kept if self.kept[scan] and request.scan in ("", scan)]
        return sorted((one for one in states if one.version > request.after), key=lambda one: one.version)

    def state(self, scan: str) -> r.ProductState:
        kept = self.kept[scan]
        complete = 0
        while complete in kept:
            complete = kept[complete][0]
        return r.ProductState(
            product=product_of(scan),
            modality="m",
            complete=complete,
            version=max(version for *_, version in kept.values()),
            datasets=HEADERS if scan in self.formed else (),
            holes=self.holes(scan, 0, complete),
            results=sum(outcome == "result" for _, outcome, _, _ in kept.values()),
        )

    def holes(self, scan: str, start: int, stop: int) -> tuple[r.Hole, ...]:
        return tuple(
            r.Hole(start=first, stop=last, reason=reason)
            for first, (last, outcome, reason, _) in sorted(self.kept[scan].items())
            if outcome != "result" and first < stop and start < last
        )

    def covered(self, scan: str, start: int, stop: int) -> list[int]:
        ranges = [(first, last) for first, (last, outcome, *_) in self.kept[scan].items() if outcome == "result"]
        return [index for first, last in sorted(ranges) for index in range(max(first, start), min(last, stop))]

    # --- what may happen ---------------------------------------------------------------------------------------------

    @rule(scan=SCANS, length=st.integers(1, 6), kind=KINDS, gap=st.sampled_from([0, 0, 0, 3]), crash=st.booleans())
    def one_comes(self, scan: str, length: int, kind: str, gap: int, crash: bool) -> None:
        self.release(scan, length, kind, gap, crash)

    def release(self, scan: str, length: int, kind: str, gap: int, crash: bool) -> None:
        start = gap + max((stop for stop, *_ in self.kept[scan].values()), default=0)
        request, arrays, trouble = self.spoil(scan, start, start + length, kind)
        if crash:
            self.shelf.batch(self.machine, [Heard(b"sorter", r.Release(result=request), 1, 0, arrays)], self.time)
            self.restart()
        self.taken += 1
        outcome = "abandoned" if trouble else request.outcome
        reason = trouble or request.reason or request.outcome
        self.kept[scan][start] = (start + length, outcome, reason, self.taken)
        self.formed |= {scan} if outcome == "result" else set()
        answer, _ = self.ask(r.Release(result=request), arrays)
        assert answer == r.Released(task=request.task.id, outcome=outcome)

    @rule(scan=SCANS, cut=st.lists(st.integers(1, 6), min_size=2, max_size=5))
    def measure(self, scan: str, cut: list[int]) -> None:
        for length in cut:
            self.release(scan, length, "result", 0, False)

    def spoil(self, scan: str, start: int, stop: int, kind: str) -> tuple[r.StoreRequest, Arrays, str]:
        if kind in ("empty", "abandoned"):
            return request_of(scan, start, stop, "empty" if kind == "empty" else "abandoned"), {}, ""
        request, arrays, length = request_of(scan, start, stop), arrays_of(start, stop), stop - start
        if kind == "missing":
            return request, {"value": arrays["value"]}, "dataset count was announced but did not come"
        if kind == "too short":
            arrays["count"] = arrays["count"][:-1]
            return request, arrays, f"dataset count has ({length - 1},) values for {length} indexes"
        if kind == "other shape" and scan in self.formed:
            arrays["max"] = np.zeros(3, np.uint8)
            return request, arrays, "dataset max is |u1[3] here and |u1[2] in the results before it"
        if kind == "other merge" and scan in self.formed:
            odd = tuple(r.DatasetHeader(name=one.name, units=one.units, per="scan", merge="sum") for one in HEADERS)
            reason = "dataset value is merged in another way here than in the results before it"
            return r.StoreRequest(task=request.task, attempt=1, outcome="result", datasets=odd), arrays, reason
        return request, arrays, ""

    @precondition(lambda self: self.kept["a"])
    @rule(data=st.data(), outcome=st.sampled_from(["result", "abandoned"]))
    def repeat(self, data: st.DataObject, outcome: r.Outcome) -> None:
        """A release that came before changes nothing, whatever it says."""
        start = data.draw(st.sampled_from(sorted(self.kept["a"])))
        request = request_of("a", start, self.kept["a"][start][0], outcome, attempt=2)
        arrays = {name: array + 1 for name, array in arrays_of(start, request.task.stop).items()}
        answer, _ = self.ask(r.Release(result=request), arrays if outcome == "result" else {})
        assert answer == r.Released(task=request.task.id, outcome=self.kept["a"][start][1])

    @rule(back=st.integers(-2, 3), wait=st.sampled_from([0.0, 5.0, 30.0]), scan=st.sampled_from(["", "a", "c"]), me=st.booleans())
    def watch(self, back: int, wait: float, scan: str, me: bool) -> None:
        self.ids += 1
        peer = b"x" if me else b"y"
        request = r.WatchRequest(after=max(0, self.taken - back), wait=wait, scan=ScanId(scan))
        self.watching = {key: value for key, value in self.watching.items() if key[0] != peer}  # one question per peer
        self.watching[peer, self.ids] = (request, self.time + wait)
        self.tell([Heard(peer, request, self.ids)])

    @rule()
    def vanish(self) -> None:
        self.watching = {key: value for key, value in self.watching.items() if key[0] != b"x"}
        effects = self.tell([Unreachable(b"x")])
        assert not [effect for effect in effects if isinstance(effect, Send) and effect.peer == b"x"]

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.tell([])

    @rule()
    def crash(self) -> None:
        self.restart()

    @precondition(lambda self: self.formed)
    @rule(data=st.data(), start=st.integers(-2, 40), length=st.integers(0, 30))
    def fetch(self, data: st.DataObject, start: int, length: int) -> None:
        scan = data.draw(st.sampled_from(sorted(self.formed)))
        header = data.draw(st.sampled_from(HEADERS))
        request = r.FetchRequest(product=product_of(scan), dataset=header.name, start=start, stop=start + length)
        answer, arrays = self.ask(request)
        first, last = max(0, start), max(0, start + length)
        assert isinstance(answer, r.Fetched)
        assert (answer.start, answer.stop, answer.header) == (first, last, header)
        if length:
            assert answer.holes == self.holes(scan, first, last)
        if header.per == "index":
            self.compare_rows(header.name, arrays["data"], first, last, set(self.covered(scan, first, last)))
        else:
            assert arrays["data"].shape == (2,)
            assert arrays["data"].dtype == {"sum": np.uint64, "max": np.uint8, "first": np.float64}[header.name]

    def compare_rows(self, name: str, data: NDArray[Any], first: int, last: int, covered: set[int]) -> None:
        assert len(data) == last - first
        assert data.dtype == truth(name, 0).dtype
        for index, row in zip(range(first, last), data, strict=True):
            if index in covered:
                assert row.tobytes() == truth(name, index).tobytes()
            else:
                assert np.isnan(row).all() if data.dtype.kind == "f" else not row.any()

    @precondition(lambda self: self.formed)
    @rule(data=st.data())
    def merged(self, data: st.DataObject) -> None:
        """What is merged over the scan is what one task would have made of all indexes."""
        scan = data.draw(st.sampled_from(sorted(self.formed)))
        covered = self.covered(scan, 0, 10_000)
        rows = np.stack([truth("sum", index) for index in covered])
        expected = {"sum": rows.sum(axis=0, dtype=np.uint64), "max": rows.max(axis=0), "first": truth("first", 0)}
        for name, value in expected.items():
            _, arrays = self.ask(r.FetchRequest(product=product_of(scan), dataset=name, start=0, stop=10_000))
            assert arrays["data"].dtype == value.dtype
            assert arrays["data"].tobytes() == value.tobytes()

    @rule(scan=SCANS, limit=st.sampled_from([0, 1, 1000, 5000, 16 << 20]), start=st.integers(-1, 20))
    def page(self, scan: str, limit: int, start: int) -> None:
        """Paging brings all that lies in one piece behind `start`, each result once, in order."""
        kept, seen = self.kept[scan], []
        if not kept:
            return
        at = max(0, start)
        at = next((stop for first, (stop, *_) in kept.items() if first < at < stop), at)
        expected = []
        while at in kept:
            expected.append(at)
            at = kept[at][0]
        while True:
            answer, arrays = self.ask(r.ResultsRequest(product=product_of(scan), start=start, limit=limit))
            assert isinstance(answer, r.Results)
            if not answer.results:
                break
            assert limit > 1 or len(answer.results) == 1
            for position, result in enumerate(answer.results):
                seen.append(result.task.start)
                self.compare_whole(
                    scan, result, {n.removeprefix(f"{position}/"): a for n, a in arrays.items() if n.startswith(f"{position}/")}
                )
            start = answer.next
        assert seen == expected
        assert answer.next == at

    def compare_whole(self, scan: str, result: r.StoreRequest, arrays: Arrays) -> None:
        stop, outcome, reason, _ = self.kept[scan][result.task.start]
        assert (result.task.stop, result.outcome, result.attempt) == (stop, outcome, 1)
        assert outcome == "result" or (result.reason or outcome) == reason
        expected = arrays_of(result.task.start, stop) if outcome == "result" else {}
        assert {name: array.tobytes() for name, array in arrays.items()} == {n: a.tobytes() for n, a in expected.items()}

    @invariant()
    def all_is_listed(self) -> None:
        answer, _ = self.ask(r.ListRequest())
        assert isinstance(answer, r.Products)
        assert answer.version == self.taken, "the version went back, or forward"
        assert list(answer.products) == self.news(r.WatchRequest(after=0))

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        for request, deadline in self.watching.values():
            assert not self.news(request), "there is news, and a watcher sleeps"
            assert self.time < deadline, "a watcher waits longer than he wanted"


TestCatalogueStory = CatalogueStory.TestCase
TestCatalogueStory.settings = settings(max_examples=30, stateful_step_count=40)


def ask(machine: SinkMachine, shelf: Shelf, message: Message, arrays: Arrays | None = None) -> Message:
    effects = shelf.batch(machine, [Heard(b"me", message, 1, 0, arrays or {})], 0.0)
    return next(effect.message for effect in effects if isinstance(effect, Send))


def test_refusals_say_what_there_is() -> None:
    shelf = Shelf()
    machine = SinkMachine(shelf)
    fetch = r.FetchRequest(product=product_of("a"), dataset="valu", start=0, stop=1)
    answer = ask(machine, shelf, fetch)
    assert isinstance(answer, Refused)
    assert "a/xrf" in answer.reason
    assert "nothing yet" in answer.reason
    ask(machine, shelf, r.Release(result=request_of("a", 0, 4)), arrays_of(0, 4))
    answer = ask(machine, shelf, fetch)
    assert isinstance(answer, Refused)
    assert "'valu'" in answer.reason
    assert "value" in answer.reason
    answer = ask(machine, shelf, r.ResultsRequest(product=product_of("b"), start=0))
    assert isinstance(answer, Refused)
    assert "a/xrf" in answer.reason
    answer = ask(machine, shelf, r.FetchRequest(product=product_of("a"), dataset="value", start=0, stop=1 << 40))
    assert isinstance(answer, Refused)
    assert "fetch fewer" in answer.reason
    answer = ask(machine, shelf, r.Release(result=request_of("a", 9, 4)))
    assert isinstance(answer, Refused)
    assert "no range" in answer.reason
    assert isinstance(ask(machine, shelf, ScansRequest()), Unsupported)


def test_two_datasets_of_one_name_are_a_hole() -> None:
    shelf = Shelf()
    machine = SinkMachine(shelf)
    good = request_of("a", 0, 2)
    twice = (r.DatasetHeader(name="value", units="1"), r.DatasetHeader(name="value", units="1", per="scan", merge="sum"))
    request = r.StoreRequest(task=good.task, attempt=1, outcome="result", datasets=twice)
    ask(machine, shelf, r.Release(result=request), {"value": np.zeros((2, 2))})
    answer = ask(machine, shelf, r.ListRequest())
    assert isinstance(answer, r.Products)
    assert "another way" in answer.products[0].holes[0].reason


def test_a_watcher_that_is_gone_is_told_nothing() -> None:
    shelf = Shelf()
    machine = SinkMachine(shelf)
    shelf.batch(machine, [Heard(b"x", r.WatchRequest(after=0), 1), Unreachable(b"x")], 0.0)
    effects = shelf.batch(machine, [Heard(b"sorter", r.Release(result=request_of("a", 0, 4)), 1, 0, arrays_of(0, 4))], 1.0)
    assert [effect.peer for effect in effects if isinstance(effect, Send)] == [b"sorter"]


def test_a_watcher_has_one_question_at_a_time() -> None:
    """Who asks and asks and never reads costs one place, and gets the newest state once."""
    machine = SinkMachine(Shelf())
    for number in range(50):
        machine.handle(Heard(b"deaf", r.WatchRequest(after=0, wait=60.0), number + 1), Seconds(0.0))
    effects = machine.handle(Tick(), Seconds(100.0))
    assert [effect.reply_to for effect in effects if isinstance(effect, Send)] == [50]
