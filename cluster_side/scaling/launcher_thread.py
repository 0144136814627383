"""A thread that calls the batch system for the autoscaler, so that a slow answer of Slurm does not delay answers to others.

Clock policy: none. Invariants: one call at a time, in the order in which they were asked for; each gives exactly one result.
"""

import queue
import threading
from dataclasses import dataclass, field

import structlog

from beamtide.config.models import Deployment
from cluster_side.scaling.jobs.batch_calls import Answered, BatchCall, Look, Result, Start, Withdraw
from cluster_side.scaling.launchers.base import Launcher, Unclear, Unseen
from cluster_side.scaling.orders import order_for

log = structlog.get_logger()


@dataclass(slots=True)
class LauncherThread:
    """The thread, while it is open. If a launcher raises, its result is unclear, and the error is passed to `complain`."""

    deployment: Deployment
    launcher: Launcher
    waiting: int = 0
    _wanted: "queue.SimpleQueue[BatchCall | None]" = field(default_factory=queue.SimpleQueue)
    _results: "queue.SimpleQueue[Result | None]" = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def open(self) -> None:
        """Start."""
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until all calls are done, then end the thread."""
        self._wanted.put(None)
        if self._thread is not None:
            self._thread.join()

    def want(self, call: BatchCall) -> None:
        """Ask for something."""
        if isinstance(call, Start):
            log.info("orders jobs", pipeline=call.order.pipeline, jobs=call.order.count, token=call.order.token)
        elif isinstance(call, Withdraw):
            log.info("cancels jobs", ids=call.ids)
        self.waiting += 1
        self._wanted.put(call)

    def results(self) -> list[Result]:
        """Return the results since the last time."""
        found = []
        while not self._results.empty():
            self.waiting -= 1
            if (result := self._results.get()) is not None:
                found.append(result)
        return found

    def _run(self) -> None:
        while (call := self._wanted.get()) is not None:
            self._results.put(self._do(call))

    def _do(self, call: BatchCall) -> Result | None:
        try:
            match call:
                case Start(order):
                    return Answered(order.token, self.launcher.submit(order_for(self.deployment, self.launcher, call)))
                case Withdraw(ids):
                    self.launcher.cancel(ids)
                case Look():
                    return self.launcher.look()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            log.error("launcher failed", reason=said)
            sentence = f"the launcher failed: {said}"
            return Answered(call.order.token, Unclear(sentence)) if isinstance(call, Start) else Unseen(sentence)
        return None
