"""Tells the sink which products are in files, so that it may delete them when it needs the room.

Theory: a product that has its final file could still be needed: another pipeline's task may fetch it, a dead letter may be
retried and fill a hole. So the sink is told only when the scan has ended, all its files exist, the distributor has no open task
of it, and the buffers have no dead letter of it. They are asked some time after the last file, when tasks that depend on these
results have been made. Telling the sink twice changes nothing; a product that changes afterwards is filed again.

Clock policy: the monotonic clock says when a scan is checked again. Invariant: a few scans per round, so files are never late.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import NoAnswer
from beamtide.messages import Message, Ok
from beamtide.messages.base import ScanId
from beamtide.messages.dead_letters import DeadLetters, DeadListRequest
from beamtide.messages.results import Filed, Product, ProductState
from beamtide.messages.tasks import StatusRequest, TaskStatus
from beamtide.pump import Caller

M = TypeVar("M", bound=Message)
WHILE = 60.0
"""Seconds after which a scan is checked, and checked again if it was not over."""
FEW = 4
"""Scans that are checked in one round."""
PATIENCE = 2.5


class FiledScans:
    """What the sink was told, and when to check the other scans."""

    def __init__(self, deployment: Deployment, caller: Caller) -> None:
        self._deployment, self._caller = deployment, caller
        self._writing = {name for name, pipeline in deployment.pipelines.items() if pipeline.write}
        self._told: dict[ScanId, int] = {}
        self._looks: dict[ScanId, tuple[int, float]] = {}
        """The version at which a scan had all its files, and when to check it."""

    def step(self, products: Mapping[Product, ProductState], done: Collection[Product]) -> None:
        """Tell the sink of some scans whose products are all `done`; NoAnswer: a service that must be asked does not answer."""
        found: dict[ScanId, list[ProductState]] = {}
        for product, state in products.items():
            if product.pipeline in self._writing and not state.filed:
                found.setdefault(product.scan, []).append(state)
        whole = {scan: states for scan, states in found.items() if all(state.product in done for state in states)}
        for scan, states in whole.items():
            version = max(state.version for state in states)
            if self._told.get(scan) != version:
                self._look_later(scan, version)
        self._looks = {scan: look for scan, look in self._looks.items() if scan in whole}
        due = [scan for scan, (_, at) in self._looks.items() if at <= clock.monotonic()]
        try:
            for scan in due[:FEW]:
                self._look(scan, whole[scan])
        except NoAnswer:  # wait for a missing answer once, not once per scan
            self._looks = {scan: (version, clock.monotonic() + WHILE) for scan, (version, _) in self._looks.items()}
            raise

    def _look_later(self, scan: ScanId, version: int) -> None:
        if self._looks.get(scan, (0, 0.0))[0] != version:
            self._looks[scan] = version, clock.monotonic() + WHILE

    def _look(self, scan: ScanId, states: list[ProductState]) -> None:
        version, _ = self._looks[scan]
        self._looks[scan] = version, clock.monotonic() + WHILE
        if self._is_open(scan):
            return
        for state in states:
            if state.version <= version:
                self._ask("sink", Filed(product=state.product, version=state.version), Ok)
        self._told[scan] = version
        del self._looks[scan]

    def _is_open(self, scan: ScanId) -> bool:
        """Whether a task of a scan is open, or may be retried."""
        status = self._ask("distributor", StatusRequest(scan=scan), TaskStatus)
        if any(tally.submitted > tally.results + tally.empty + tally.abandoned for tally in status.tallies):
            return True
        holes = sorted({tally.pipeline for tally in status.tallies if tally.abandoned})
        return any(self._ask(f"buffer.{name}", DeadListRequest(scan=scan), DeadLetters).total for name in holes)

    def _ask(self, component: str, question: Message, answer: type[M]) -> M:
        return self._caller.ask(self._deployment.address(component), question, answer, patience=PATIENCE)
