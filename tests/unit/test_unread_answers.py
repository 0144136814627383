"""Unread answers: a peer gets more when it has read them; peers that never read get one, and block nobody."""

from threading import Event

import zmq

from beamtide.pump.unread_answers import UnreadAnswers


def sent(size: int = 10) -> tuple[Event, tuple[zmq.MessageTracker, int]]:
    """A part that is unread until the event is set."""
    taken = Event()
    return taken, (zmq.MessageTracker(taken), size)


def test_a_peer_that_reads_is_never_refused() -> None:
    answers = UnreadAnswers(100)
    for _ in range(50):
        assert answers.refusal(b"a", 90) == ""
        taken, one = sent(90)
        answers.note(b"a", [one])
        taken.set()


def test_a_peer_that_never_reads_gets_a_quarter_or_one_answer() -> None:
    answers = UnreadAnswers(100)
    for _ in range(2):
        assert answers.refusal(b"a", 10) == ""
        answers.note(b"a", [sent()[1]])
    assert answers.refusal(b"a", 5) == ""
    assert "you have not read them" in answers.refusal(b"a", 6)
    assert answers.refusal(b"b", 1000) == "", "no peer is refused its first answer"
    answers.note(b"b", [sent(1000)[1]])
    assert answers.refusal(b"b", 1)
    assert answers.refusal(b"c", 1000) == ""
    assert answers.refusal(b"a", 1), "all together have more than the budget"


def test_what_was_taken_counts_no_more() -> None:
    answers, (taken, first), (late, second) = UnreadAnswers(100), sent(20), sent(20)
    answers.note(b"a", [first, second])
    assert answers.refusal(b"a", 5)
    taken.set()
    assert answers.refusal(b"a", 5) == ""
    late.set()
    assert answers.refusal(b"a", 1000) == ""


def test_peers_that_are_gone_leave_nothing() -> None:
    answers = UnreadAnswers(100)
    for number in range(100):
        taken, one = sent()
        answers.refusal(str(number).encode(), 10)
        answers.note(str(number).encode(), [one])
        taken.set()
    answers.refusal(b"last", 1)
    assert not answers._unread, "nothing else shows it"
