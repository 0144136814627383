"""What peers are lent: they get more when they have read it, the deaf get one answer, and take nothing from the others."""

from threading import Event

import zmq

from beamtide.pump.unread_answers import UnreadAnswers


def loan(size: int = 10) -> tuple[Event, tuple[zmq.MessageTracker, int]]:
    """A part that is on its way until the event is set."""
    taken = Event()
    return taken, (zmq.MessageTracker(taken), size)


def test_a_peer_that_reads_is_never_refused() -> None:
    lent = UnreadAnswers(100)
    for _ in range(50):
        assert lent.refusal(b"a", 90) == ""
        taken, one = loan(90)
        lent.note(b"a", [one])
        taken.set()


def test_a_deaf_peer_gets_a_quarter_or_one_answer() -> None:
    lent = UnreadAnswers(100)
    for _ in range(2):
        assert lent.refusal(b"a", 10) == ""
        lent.note(b"a", [loan()[1]])
    assert lent.refusal(b"a", 5) == ""
    assert "you have not read them" in lent.refusal(b"a", 6)
    assert lent.refusal(b"b", 1000) == "", "nobody is refused his first"
    lent.note(b"b", [loan(1000)[1]])
    assert lent.refusal(b"b", 1)
    assert lent.refusal(b"c", 1000) == ""
    assert lent.refusal(b"a", 1), "all together have more than the budget"


def test_what_was_taken_counts_no_more() -> None:
    lent, (taken, first), (late, second) = UnreadAnswers(100), loan(20), loan(20)
    lent.note(b"a", [first, second])
    assert lent.refusal(b"a", 5)
    taken.set()
    assert lent.refusal(b"a", 5) == ""
    late.set()
    assert lent.refusal(b"a", 1000) == ""


def test_peers_that_are_gone_leave_nothing() -> None:
    lent = UnreadAnswers(100)
    for number in range(100):
        taken, one = loan()
        lent.refusal(str(number).encode(), 10)
        lent.note(str(number).encode(), [one])
        taken.set()
    lent.refusal(b"last", 1)
    assert not lent._loans, "nothing else shows it"
