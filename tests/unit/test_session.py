"""How a component stays known, how a question is asked again, and that no odd wait gets into the deadlines."""

import math

import pytest

from beamline_side.cores.pending_requests import LONGEST_WAIT, PendingRequests
from beamtide.machine import Effect, Heard, Send, Unreachable, WakeAt, link
from beamtide.messages.base import Message, Ok, Refused, Seconds
from beamtide.messages.topology import ComponentCard, Heartbeat, Hello, TopologyRequest, Unregistered
from beamtide.session import GRACE, Poll, Session

CARD = ComponentCard(name="sink", kind="sink", address="tcp://a", boot="b")


def speak(session: Session, now: float) -> list[Message]:
    return sent(session.tick(Seconds(now), "running", {"done": 1.0}, "why"))


def sent(effects: list[Effect]) -> list[Message]:
    assert all(effect.peer == link("topology") for effect in effects if isinstance(effect, Send))
    return [effect.message for effect in effects if isinstance(effect, Send)]


def test_hello_comes_first_and_again_until_it_is_answered() -> None:
    session = Session(CARD)
    assert speak(session, 0.0) == [Hello(card=CARD)]
    assert speak(session, 1.9) == []
    assert speak(session, 2.0) == [Hello(card=CARD)]
    session.heard(Ok())
    beat = Heartbeat(name="sink", boot="b", state="running", progress={"done": 1.0}, why="why")
    assert speak(session, 3.9) == []
    assert speak(session, 4.0) == [beat]


def test_a_late_tick_delays_the_beat_and_brings_no_burst() -> None:
    session = Session(CARD)
    speak(session, 0.0)
    session.heard(Ok())
    assert len(speak(session, 100.0)) == 1
    assert speak(session, 101.9) == []
    assert len(speak(session, 102.0)) == 1


def test_a_beat_wakes_the_pump_for_the_next() -> None:
    assert WakeAt(Seconds(7.0)) in Session(CARD).tick(Seconds(5.0), "running", {}, "")


def test_a_manager_that_forgot_hears_hello_at_once_but_once() -> None:
    session = Session(CARD)
    speak(session, 0.0)
    session.heard(Ok())
    speak(session, 2.0)
    session.heard(Unregistered(name="sink"))
    assert speak(session, 2.1) == [Hello(card=CARD)]
    session.heard(Unregistered(name="sink"))  # the cable doubled it
    assert speak(session, 2.2) == []
    assert speak(session, 4.1) == [Hello(card=CARD)]


def test_who_is_refused_goes_on_beating() -> None:
    """The newer of the two may be lost some day; then the older is needed."""
    session = Session(CARD)
    speak(session, 0.0)
    session.heard(Refused(reason="another sink was started later"))
    assert isinstance(speak(session, 2.0)[0], Heartbeat)


def test_farewell_says_stopped() -> None:
    assert sent(Session(CARD).farewell({"done": 3.0})) == [
        Heartbeat(name="sink", boot="b", state="stopped", progress={"done": 3.0})
    ]


def test_a_question_is_asked_again_when_no_answer_came() -> None:
    poll = Poll(wait=10.0)
    assert poll.due(Seconds(0.0))
    assert poll.asked(Seconds(5.0)) == WakeAt(Seconds(15.0 + GRACE))
    assert not poll.due(Seconds(14.9 + GRACE))
    assert poll.due(Seconds(15.0 + GRACE))


def test_an_answer_makes_the_next_question_due_and_a_rest_delays_it() -> None:
    poll = Poll()
    poll.asked(Seconds(5.0))
    poll.answered()
    assert poll.due(Seconds(5.0))
    assert poll.rest(Seconds(6.0), 1.0) == WakeAt(Seconds(7.0))
    assert not poll.due(Seconds(6.9))
    assert poll.due(Seconds(7.0))


@pytest.mark.parametrize(
    ("wait", "deadline"),
    [
        (math.nan, 100.0),
        (math.inf, 100.0 + LONGEST_WAIT),
        (-math.inf, 100.0),
        (-3.0, 100.0),
        (1e300, 100.0 + LONGEST_WAIT),
        (5.0, 105.0),
    ],
)
def test_a_wait_without_sense_ends_all_the_same(wait: float, deadline: float) -> None:
    waiting: PendingRequests[str, TopologyRequest] = PendingRequests()
    question = TopologyRequest(wait=wait)
    assert waiting.add("key", Heard(b"x", question, 1), question, 100.0, wait) == deadline == waiting.wake()
    assert not waiting.expired(deadline - 0.1) or deadline == 100.0
    waiting.expired(deadline)
    assert len(waiting) == 0


def test_a_newer_question_takes_the_place_of_the_older_and_keeps_its_own_time() -> None:
    waiting: PendingRequests[str, TopologyRequest] = PendingRequests()
    for number, wait in ((1, 5.0), (2, 20.0)):
        waiting.add("key", Heard(b"x", TopologyRequest(), number), TopologyRequest(), 0.0, wait)
    assert len(waiting) == 1
    assert waiting.expired(5.0) == []
    ((key, asker),) = waiting.expired(20.0)
    assert (key, asker.id) == ("key", 2)


def test_a_peer_that_is_gone_waits_no_more() -> None:
    waiting: PendingRequests[int, TopologyRequest] = PendingRequests()
    for number, peer in enumerate((b"x", b"y", b"x")):
        waiting.add(number, Heard(peer, TopologyRequest(), number), TopologyRequest(), 0.0, 5.0)
    waiting.forget(Unreachable(b"x"))
    assert [key for key, _ in waiting.items()] == [1]
    assert [key for key, _ in waiting.expired(9.0)] == [1]


def test_a_late_answer_does_not_make_two_questions_of_one() -> None:
    """Found by the imaginary site: each answer that came after its question was repeated doubled the questions, for good."""
    poll = Poll(wait=2.0)
    poll.asked(Seconds(0.0))
    assert poll.due(Seconds(3.0))
    poll.asked(Seconds(3.0))
    poll.heard(Seconds(3.5), news=False)  # the answer to the first: the second is still under way
    assert not poll.due(Seconds(3.5))
    poll.heard(Seconds(5.0), news=False)
    assert poll.due(Seconds(5.0))
    poll.asked(Seconds(5.0))
    poll.heard(Seconds(5.1), news=True)
    assert poll.due(Seconds(5.1))
