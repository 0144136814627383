"""F9: a buffer that stood still does not blame its workers for a silence that was its own."""

from beamline_side.cores.buffer.lease_clock import MOST, LeaseClock
from beamtide.machine import Tick
from beamtide.messages.base import Ok, Seconds
from beamtide.messages.tasks import Beat, Stale
from tests.unit.test_buffer_and_distributor import Driven, buffer, lease, task_of

__all__ = ["buffer"]


def test_a_gap_counts_for_little_and_what_follows_in_full() -> None:
    clock = LeaseClock()
    assert clock.at(Seconds(100.0)) == 100.0
    assert clock.at(Seconds(101.0)) == 101.0
    assert clock.at(Seconds(161.0)) == 101.0 + MOST
    assert clock.at(Seconds(162.0)) == 102.0 + MOST
    assert clock.when(110.0) == 110.0 + 60.0 - MOST


def test_after_a_long_stop_beats_are_heard_before_anybody_is_lost(buffer: Driven) -> None:
    """A tick comes first: the kernel has not handed over the beats yet."""
    buffer.pull(*(task_of(number) for number in range(4)))
    for number in range(4):
        buffer.ask(lease(f"w{number}"))
    buffer.wait(5.0)
    buffer.time += 60.0
    buffer.tell(Tick())
    assert buffer.machine.progress()["leased"] == 4
    for number in range(3):
        assert buffer.ask(Beat(worker=f"w{number}", task=task_of(number).id, attempt=1)) == [Ok()]
    buffer.wait(19.0)
    assert buffer.machine.progress()["leased"] == 3, "who did not beat has lost its lease in the end"
    assert buffer.ask(Beat(worker="w3", task=task_of(3).id, attempt=1)) == [Stale(task=task_of(3).id, attempt=1)]
