"""What the scaling law reads of a queue's speed stays a number, whatever workers say."""

import math

import pytest

from beamline_side.cores.buffer.rates import PLAIN, Rates


def test_the_mean_follows_what_tasks_took() -> None:
    rates = Rates()
    rates.served(4.0)
    assert rates.service_time == 4.0
    rates.served(14.0)
    assert rates.service_time == pytest.approx(9.0)
    for _ in range(PLAIN - 2):
        rates.served(9.0)
    rates.served(9.0 + PLAIN)
    assert rates.service_time == pytest.approx(10.0)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_time_does_not_get_into_the_mean(odd: float) -> None:
    rates = Rates()
    rates.served(4.0)
    rates.served(odd)
    assert rates.service_time == 4.0


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    rates = Rates()
    rates.arrived(30, 0.0)
    assert rates.arrival_rate(10.0) == pytest.approx(3.0)
    assert rates.arrival_rate(30.0) == pytest.approx(1.0)
    assert rates.arrival_rate(31.0) == 0.0
