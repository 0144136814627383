"""Calls to the batch system as effects of the core, and what comes back as events.

An order has three forms, one for each who needs it: `Order` is what the ledger keeps, `Start` what was decided, and the launcher
makes jobs of a `JobOrder` (`orders.order_for`).
"""

from beamtide.machine import Call, Returned
from cluster_side.scaling.jobs.states import Order
from cluster_side.scaling.launchers.base import JobListing, SubmitAnswer


class Start(Call, frozen=True):
    """Order jobs. `order` is in the ledger; it must be on disk before the batch system hears of it."""

    order: Order
    tasks: int
    walltime: int
    exclude: tuple[str, ...]


class Withdraw(Call, frozen=True):
    """Cancel these jobs."""

    ids: tuple[str, ...]
    reason: str


class Look(Call, frozen=True):
    """Look at all jobs."""


class Answered(Returned, frozen=True):
    """What came of an order."""

    token: str
    answer: SubmitAnswer


class Looked(Returned, frozen=True):
    """What the batch system shows."""

    listing: JobListing
