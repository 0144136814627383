"""One thread that calls the batch system for the autoscaler, so that a slow answer holds up nobody who asks.

Clock policy: none. Invariants: one call at a time, in the order in which they were asked for; an order and a look bring back
exactly one result each, whatever happens.
"""

import queue
import threading
from dataclasses import dataclass, field

import structlog

from beamtide.config.models import Deployment
from beamtide.machine import Call, Returned
from cluster_side.scaling.jobs.batch_calls import Answered, Look, Looked, Start, Withdraw
from cluster_side.scaling.launchers.base import Launcher, Unclear, Unseen
from cluster_side.scaling.orders import order_for

log = structlog.get_logger()


@dataclass(slots=True)
class LauncherThread:
    """A `beamtide.pump.Outside`, while it is open. A launcher that raises has made a mistake: its call is unclear, and told."""

    deployment: Deployment
    launcher: Launcher
    _wanted: "queue.SimpleQueue[Call | None]" = field(default_factory=queue.SimpleQueue)
    _returned: "queue.SimpleQueue[Returned]" = field(default_factory=queue.SimpleQueue)
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

    def call(self, call: Call) -> None:
        """Ask for something."""
        if isinstance(call, Start):
            log.info("orders jobs", pipeline=call.order.pipeline, jobs=call.order.count, token=call.order.token)
        elif isinstance(call, Withdraw):
            log.info("cancels jobs", ids=call.ids)
        self._wanted.put(call)

    def returned(self) -> list[Returned]:
        """Return what has come back since the last time."""
        found = []
        while not self._returned.empty():
            found.append(self._returned.get())
        return found

    def _run(self) -> None:
        while (call := self._wanted.get()) is not None:
            if (result := self._do(call)) is not None:
                self._returned.put(result)

    def _do(self, call: Call) -> Returned | None:
        try:
            match call:
                case Start(order):
                    return Answered(order.token, self.launcher.submit(order_for(self.deployment, self.launcher, call)))
                case Withdraw(ids):
                    self.launcher.cancel(ids)
                case Look():
                    return Looked(self.launcher.look())
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            log.error("launcher failed", reason=said)
            sentence = f"the launcher failed: {said}"
            return Answered(call.order.token, Unclear(sentence)) if isinstance(call, Start) else Looked(Unseen(sentence))
        return None
