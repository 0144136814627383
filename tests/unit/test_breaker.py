"""What holds jobs back: the breaker and its probes, the learned limit, the nodes to avoid, and the budget."""

import pytest

from cluster_side.scaling.launchers.base import EndCause
from cluster_side.scaling.policy.breaker import AVOID_FOR, FAILURES, LEARNED_FOR, LONGEST_PAUSE, BadNodes, Breaker, LearnedCap
from cluster_side.scaling.policy.budget import NodeHourBudget


def failed(times: int = FAILURES, now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker.ended(EndCause.CODE, "exit code 2", now)
    return breaker


def test_failures_in_a_row_hold_jobs_back_and_one_job_probes() -> None:
    assert failed(FAILURES - 1).allows(3, 0, 0.0) == 3
    breaker = failed()
    assert (breaker.allows(3, 0, 4.9), breaker.allows(3, 0, 5.0), breaker.allows(3, 1, 5.0)) == (0, 1, 0)
    assert breaker.why(1.0) == "the last 5 jobs ended before they worked: exit code 2; tries again in 4 s"
    breaker.ended(EndCause.CODE, "exit code 2", 5.0)
    assert breaker.allows(3, 0, 14.9) == 0
    breaker.works()
    assert (breaker.allows(3, 0, 14.9), breaker.why(14.9)) == (3, "")


def test_pauses_double_up_to_five_minutes() -> None:
    breaker = failed(40)
    assert breaker.until == LONGEST_PAUSE


@pytest.mark.parametrize("cause", [EndCause.CANCELLED, EndCause.PREEMPTED, EndCause.TIMEOUT, EndCause.NODE])
def test_what_is_nobodys_fault_does_not_count(cause: EndCause) -> None:
    breaker = Breaker()
    for _ in range(3 * FAILURES):
        breaker.ended(cause, "", 0.0)
    assert breaker.allows(7, 0, 0.0) == 7


def test_refusals_are_told_apart() -> None:
    rules, limit, down = Breaker(), Breaker(), Breaker()
    rules.denied(EndCause.RULES, "invalid account", 0.0)
    limit.denied(EndCause.LIMIT, "QOSMaxSubmitJobPerUserLimit", 0.0)
    down.denied(EndCause.DOWN, "slurmctld does not answer", 0.0)
    assert [one.allows(5, 0, 1.0) for one in (rules, limit, down)] == [0, 5, 0]
    assert [one.allows(5, 0, 6.0) for one in (rules, limit, down)] == [1, 5, 5]
    assert "invalid account" in rules.why(1.0)


def test_a_limit_is_learned_for_a_while() -> None:
    learned = LearnedCap()
    assert learned.room(80, 0.0) == 80
    learned.hit(10, 40, "AssocMaxSubmitJobLimit", 0.0)
    assert learned.room(80, 0.0) == 30
    learned.hit(10, 5, "AssocMaxSubmitJobLimit", 0.0)
    assert (learned.room(80, 1.0), learned.room(5, 1.0), learned.room(80, LEARNED_FOR)) == (12, 5, 80)
    assert "no more than 12 jobs now (AssocMaxSubmitJobLimit)" in learned.why(1.0)


def test_a_node_that_failed_or_twice_did_not_start_a_job_is_avoided_for_a_while() -> None:
    nodes = BadNodes()
    nodes.ended(EndCause.NODE, ["n1"], 0.0)
    nodes.ended(EndCause.START, ["n2", "n3"], 0.0)
    nodes.ended(EndCause.CODE, ["n4"], 0.0)
    assert nodes.avoided(1.0) == ("n1",)
    nodes.work(["n3"])
    nodes.ended(EndCause.START, ["n2", "n3"], 2.0)
    assert nodes.avoided(3.0) == ("n1", "n2")
    assert nodes.avoided(AVOID_FOR + 2.0) == ()


def test_node_hours_are_counted_by_the_hour_and_forgotten_after_a_day() -> None:
    budget = NodeHourBudget(2.0, offset=3600.0 * 1000)
    budget.spend(4.0, 0.0)
    budget.spend(4.0, 1799.0)
    assert budget.why() == ""
    budget.spend(0.5, 1801.0)
    budget.spend(0.0, 3601.0)
    assert budget.spent() == pytest.approx(2.0, abs=0.01)
    budget.hours[1000] += 8.0
    assert budget.why().startswith("the budget is spent: 2.0 of 2 node-hours")
    budget.spend(0.0, 25 * 3600.0)
    assert budget.spent() == 0.0
