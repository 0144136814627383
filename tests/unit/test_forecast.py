"""What announced scans bring, and when they are not believed any more."""

import pytest

from beamtide.messages.metadata import ScanState
from cluster_side.scaling.policy.forecast import Expected, Forecast
from tests.builders.scans import make_scan, make_state
from tests.builders.sites import make_pipeline


def forecast(size: str | int = "line") -> Forecast:
    return Forecast(make_pipeline("p", source={"match": "*", "frames_per_task": size}))  # type: ignore[arg-type]


def scan(phase: str = "announced", starts_in: float = 30.0, period: float = 0.1, name: str = "s") -> ScanState:
    return make_state(phase, scan=make_scan(name, (100, 10), period=period), starts_in=starts_in)


def test_tasks_due_within_a_cold_start() -> None:
    one = forecast()
    assert one.expected(0.0, 5.0) is None
    one.heard([scan()], 0.0)  # 100 lines, one per second, from 30 on
    assert one.expected(10.0, 5.0) == Expected(0.0, 0.0)
    assert one.expected(28.0, 5.0) == Expected(3.0, 1.0)
    one.arrivals(11)
    assert one.expected(40.0, 5.0) == Expected(5.0, 1.0)


def test_a_scan_that_ended_or_is_all_there_brings_nothing() -> None:
    one = forecast(5)
    one.heard([scan(starts_in=0.0)], 0.0)
    assert one.expected(1.0, 5.0) == Expected(10.0, 2.0)
    one.heard([scan("ended")], 2.0)
    assert one.expected(3.0, 5.0) is None
    one.heard([scan(starts_in=0.0, name="next")], 3.0)
    one.arrivals(200)
    assert one.expected(150.0, 5.0) is None


def test_a_scan_that_does_not_come_is_not_believed() -> None:
    one = forecast()
    one.heard([scan()], 0.0)
    assert one.expected(39.9, 5.0) is not None
    assert one.expected(40.1, 5.0) is None


def test_a_scan_of_which_less_than_half_came_is_not_believed() -> None:
    slow, fast = forecast(), forecast()
    for one, came in ((slow, 9), (fast, 10)):
        one.heard([scan()], 0.0)
        one.arrivals(came)
    assert slow.expected(50.0, 5.0) is None
    assert fast.expected(50.0, 5.0) is not None


def test_a_buffer_that_was_started_again_counts_anew() -> None:
    one = forecast()
    one.arrivals(70)
    one.arrivals(20)
    one.arrivals(30)
    assert one.arrived == 80


def test_without_a_period_one_task_is_expected_at_the_beginning_and_then_the_measured_rate() -> None:
    one = forecast()
    one.heard([scan(period=0.0)], 0.0)
    assert one.expected(28.0, 5.0) == Expected(1.0, 0.0)
    one.arrivals(100)
    assert one.expected(41.0, 5.0) is None


def test_a_running_scan_counts_from_when_it_ran() -> None:
    one = forecast()
    one.heard([scan()], 0.0)
    one.heard([scan("running", 0.0)], 12.0)
    assert one.expected(13.0, 5.0) == Expected(pytest.approx(5.0), 1.0)
