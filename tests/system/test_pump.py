"""The pump over real sockets: links, unknown kinds, peers that vanish and come back, nonsense."""

import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
import zmq

from beamtide import codec
from beamtide.errors import BadInput, NoAnswer
from beamtide.machine import Call, Effect, Event, Heard, Keep, Returned, Send, Tick, Unreachable, WakeAt, link
from beamtide.messages import Message, Ok, Refused, Unsupported
from beamtide.messages.base import Seconds
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Caller, Limits, Outside, Pump
from beamtide.session import Session
from tests.builders.cores import Quiet, pumping

pytestmark = pytest.mark.system
CONTROL = Limits()


@dataclass
class Echo(Quiet):
    """Answers with what it heard; asks its link "other" on a tick; counts what happened."""

    asks: bool = False
    heard: list[Message] = field(default_factory=list)
    lost: list[bytes] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        match event:
            case Heard(peer, message, id=number, arrays=arrays):
                self.heard.append(message)
                self.arrived.set()
                if peer == link("other"):
                    return []
                return [Keep("seen", str(number), b""), Send(peer, Ok(note="echo"), number, arrays)]
            case Unreachable(peer):
                self.lost.append(peer)
            case Tick() if self.asks:
                return [Send(link("other"), Ok(note="asked")), WakeAt(Seconds(now + 0.05))]
        return []


@dataclass
class Committed:
    """A store that notes when it was committed."""

    open_rows: int = 0
    commits: list[int] = field(default_factory=list)

    def read(self, table: str, key: str) -> bytes:
        raise KeyError(key)

    def rows(self, table: str) -> Iterator[tuple[str, bytes]]:
        return iter(())

    def keep(self, table: str, key: str, body: bytes) -> None:
        self.open_rows += 1

    def forget(self, table: str, key: str) -> None: ...

    def commit(self) -> None:
        self.commits.append(self.open_rows)
        self.open_rows = 0


@contextmanager
def running(
    machine: Echo,
    address: str,
    links: dict[str, str] | None = None,
    limits: Limits = CONTROL,
    outside: Outside | None = None,
    store: Committed | None = None,
) -> Iterator[Committed]:
    store = store or Committed()
    pump = Pump(machine, Session(ComponentCard(name="echo", kind="echo", address=address)), links or {}, store, limits)
    with pumping(pump, outside=outside):
        yield store


@pytest.fixture
def address(tmp_path: pathlib.Path) -> str:
    return f"ipc://{tmp_path}/a"


def test_an_answer_comes_with_its_arrays_after_the_commit(address: str) -> None:
    with running(Echo(), address) as store, Caller() as caller:
        answer, arrays = caller.converse(address, Ok(), Ok, arrays={"a": np.arange(6.0).reshape(2, 3)}, patience=10)
        assert answer.note == "echo"
        np.testing.assert_array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]])
        assert sum(store.commits) == 1


class Fetch(Call, frozen=True):
    peer: bytes
    number: int


class Fetched(Returned, frozen=True):
    peer: bytes
    number: int


def test_a_call_is_made_after_the_commit_and_what_it_brought_back_is_an_event(address: str) -> None:
    class Asking(Echo):
        def handle(self, event: Event, now: Seconds) -> list[Effect]:
            match event:
                case Heard(peer, _, id=number):
                    return [Keep("asked", str(number), b""), Fetch(peer, number), WakeAt(now)]
                case Fetched(peer, number):
                    return [Send(peer, Ok(note="fetched"), number)]
            return []

    @dataclass
    class Desk:
        store: Committed
        back: list[Returned] = field(default_factory=list)
        uncommitted: list[int] = field(default_factory=list)

        def call(self, call: Call) -> None:
            assert isinstance(call, Fetch)
            self.uncommitted.append(self.store.open_rows)
            self.back.append(Fetched(call.peer, call.number))

        def returned(self) -> list[Returned]:
            back, self.back = self.back, []
            return back

    desk = Desk(store := Committed())
    with running(Asking(), address, store=store, outside=desk), Caller() as caller:
        assert caller.ask(address, Ok(), Ok, patience=10).note == "fetched"
    assert desk.uncommitted == [0]


def test_a_link_heals_when_the_other_side_is_started_again(tmp_path: pathlib.Path, address: str) -> None:
    other = f"ipc://{tmp_path}/other"
    with running(Echo(asks=True), address, {"other": other}):
        for _ in range(2):
            with running(there := Echo(), other):
                assert there.arrived.wait(20), "the link did not come (back) up"
                assert there.heard[0] == Ok(note="asked")


def test_an_unknown_kind_is_answered_unsupported_and_nonsense_is_survived(address: str) -> None:
    with running(Echo(), address), zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.rcvtimeo = 0, 10_000
        socket.connect(address)
        for nonsense in ([b""], [b"hello", b"you"], [codec.envelope(b"Ok") + b"\xc1"], [b"x"] * 700):
            socket.send_multipart(nonsense)
        socket.send(codec.envelope(b"FromTheFuture", 77, version=(codec.MAJOR, 99)) + b"\x90")
        letter = codec.decode(socket.recv_multipart())
        assert letter.message == Unsupported(kind="FromTheFuture")
        assert letter.reply_to == 77


def test_a_newer_minor_version_is_understood_and_answered(address: str) -> None:
    with running(echo := Echo(), address), zmq.Context() as context, context.socket(zmq.DEALER) as newer:
        newer.linger, newer.rcvtimeo = 0, 10_000
        newer.connect(address)
        head = codec.envelope(b"Ok", 77, version=(codec.MAJOR, codec.MINOR + 1))
        newer.send(head + msgspec.msgpack.encode(["mine", {"from": "the future"}]))
        letter = codec.decode(newer.recv_multipart())
        assert (letter.message, letter.reply_to) == (Ok(note="echo"), 77)
        assert echo.heard == [Ok(note="mine")]


def test_another_major_version_is_not_understood(address: str) -> None:
    with running(echo := Echo(), address), Caller() as caller, zmq.Context() as context, context.socket(zmq.DEALER) as old:
        old.linger = 0
        old.connect(address)
        old.send(codec.envelope(b"Ok", 77, version=(codec.MAJOR + 1, 0)) + msgspec.msgpack.encode([]))
        caller.ask(address, Ok(note="mine"), Ok)
        assert echo.heard == [Ok(note="mine")]


def test_silence_becomes_a_sentence(address: str) -> None:
    with Caller() as caller, pytest.raises(NoAnswer, match=r"did not answer Ok within .* is the service running"):
        caller.ask(address, Ok(), Ok, patience=1.0)


def test_a_port_in_use_is_bad_input() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        card = ComponentCard(name="echo", kind="echo", address=f"tcp://127.0.0.1:{port}")
        with pytest.raises(BadInput, match=f"cannot listen on tcp://127.0.0.1:{port}: Address already in use"):
            Pump(Echo(), Session(card), {})


def test_a_refusal_is_raised_with_its_reason(address: str) -> None:
    class Refusing(Echo):
        def handle(self, event: Event, now: Seconds) -> list[Effect]:
            return [Send(event.peer, Refused(reason="not today"), event.id)] if isinstance(event, Heard) else []

    with running(Refusing(), address), Caller() as caller, pytest.raises(BadInput, match="not today"):
        caller.ask(address, Ok(), Ok)


@dataclass
class Asker(Echo):
    """Asks its link twice, under numbers of its own, and notes which was answered."""

    answered: list[int] = field(default_factory=list)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        if isinstance(event, Heard):
            self.answered.append(event.reply_to)
            if len(self.answered) == 2:
                self.arrived.set()
            return []
        if isinstance(event, Tick) and not self.heard:
            self.heard.append(Ok())
            return [Send(link("other"), Ok(note="a"), id=7_000), Send(link("other"), Ok(note="b"), id=9_000)]
        return []


def test_an_answer_quotes_the_number_that_a_core_gave_its_question(tmp_path: pathlib.Path) -> None:
    other, asker = f"ipc://{tmp_path}/other", Asker()
    with running(Echo(), other), running(asker, f"ipc://{tmp_path}/asker", {"other": other}):
        assert asker.arrived.wait(10)
    assert asker.answered == [7_000, 9_000]
