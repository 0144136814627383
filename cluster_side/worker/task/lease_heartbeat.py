"""The heartbeat of a lease: a thread with its own connection, for as long as the process lives.

Clock policy: durations from `beamtide.clock`.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

from beamtide import clock
from beamtide.errors import BeamtideError
from beamtide.messages import Message
from beamtide.messages.tasks import Beat, Lease, Stale
from beamtide.pump import Caller
from cluster_side.worker.task.work import Work

HAND_BACK = 5.0
"""Seconds that a process whose parent is gone has to give its task back."""


def begin(work: Work, worker: str, lease: Lease, tell: Callable[[dict[str, Any]], None]) -> list[float]:
    """Start the heartbeat, and return a list with the share done, which it reports. It ends the process if the lease is stale."""
    progress, parent = [0.0], os.getppid()
    buffer, every = work.buffer, work.deployment.site.leases.beat

    def beat() -> None:
        caller, last_seen = Caller(work.identity), clock.monotonic()
        while True:
            clock.pause(every)
            last_seen = clock.monotonic() if os.getppid() == parent else last_seen
            if clock.monotonic() - last_seen > HAND_BACK + every:
                os._exit(5)  # the parent is gone, and the kernel does not react to signals
            message = Beat(worker=worker, task=lease.task.id, attempt=lease.attempt, progress=progress[0])
            try:
                answer = caller.ask(buffer, message, Message, patience=every)
            except BeamtideError:
                continue  # the buffer may be restarting: the lease is on its disk
            if isinstance(answer, Stale):
                tell({"said": "stale"})
                os._exit(0)

    threading.Thread(target=beat, daemon=True).start()
    return progress
