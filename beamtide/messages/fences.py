"""Fences: a component asks the fence whether indexes `[0, upto)` of another pipeline's results are complete, and waits.

A need that can never be met (its scan ended with fewer points) is answered at once, with the reason.
"""

from beamtide.messages.base import Message, ScanId
from beamtide.messages.tasks import Need


class FenceRequest(Message, frozen=True, kw_only=True):
    """Tell me when `need` of `scan` is met; wait up to `wait` seconds. Answered `FenceReached`, `FenceBroken`, `FencePending`."""

    scan: ScanId
    need: Need
    wait: float = 10.0


class FenceReached(Message, frozen=True, kw_only=True):
    """Indexes `[0, complete)` of that pipeline's results for this scan all have verdicts."""

    scan: ScanId
    need: Need
    complete: int


class FenceBroken(Message, frozen=True, kw_only=True):
    """This need can never be met; `reason` says why."""

    scan: ScanId
    need: Need
    reason: str


class FencePending(Message, frozen=True, kw_only=True):
    """Not yet; ask again."""

    scan: ScanId
    need: Need
    complete: int
