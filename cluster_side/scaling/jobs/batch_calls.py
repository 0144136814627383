"""Calls to the batch system, and what comes back, as values.

An order has three forms, one for each who needs it: `Order` is what the ledger keeps, `Start` what was decided, and the launcher
makes jobs of a `JobOrder` (`orders.order_for`).
"""

from dataclasses import dataclass
from typing import TypeAlias

from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launchers.base import JobListing, SubmitAnswer


@dataclass(frozen=True, slots=True)
class Start:
    """Order jobs. `order` is in the ledger; it must be on disk before the batch system hears of it."""

    order: Order
    tasks: int
    walltime: int
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Cancel these jobs."""

    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """Look at all jobs."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of an order."""

    token: str
    answer: SubmitAnswer


BatchCall: TypeAlias = Start | Withdraw | Look
Result: TypeAlias = Answered | JobListing
