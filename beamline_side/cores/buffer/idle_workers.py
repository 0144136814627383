"""Idle workers: they wait here for a task, and each lease that was sent is noted until its worker sends a message again.

Theory: the worker that began to wait last is served first, so that the others stay idle and their jobs can end. A lease whose
worker disconnected before it received it is given back at once, unless the worker asked again over another connection and has it
there. `jobs_heard` knows from the autoscaler how many may stay idle and which jobs should leave.

Clock policy: `now` is the caller's monotonic clock. Invariant: a worker waits once, with its latest request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from beamline_side.cores.buffer.jobs_heard import JobsHeard
from beamline_side.cores.buffer.open_task import Grant
from beamline_side.cores.buffer.rates import Rates
from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamtide.machine import Effect, Heard, Peer, Send, Unreachable
from beamtide.messages.base import Seconds, TaskId
from beamtide.messages.scaling import PipelineRequest, StartStages
from beamtide.messages.tasks import Lease, LeaseRequest, NoTask

REMEMBERED = 8192


@dataclass(slots=True)
class IdleWorkers:
    """The workers that wait, and leases that their workers may not have received."""

    _asking: PendingRequests[str, LeaseRequest] = field(default_factory=PendingRequests)
    _unheard: dict[Peer, tuple[TaskId, int]] = field(default_factory=dict)
    _jobs_heard: JobsHeard = field(default_factory=JobsHeard)

    def farewell(self, request: LeaseRequest, rates: Rates, now: Seconds) -> NoTask | None:
        """Note that a worker asks for a task; return the answer if it should leave."""
        farewell = self._jobs_heard.came(request, rates, now)
        if farewell is not None:
            self._asking.take(request.worker)
        return farewell

    def wait(self, event: Heard, request: LeaseRequest, now: Seconds) -> None:
        """Let a worker wait."""
        self._asking.add(request.worker, event, request, now, request.wait)

    def autoscaler_asked(self, event: Heard, request: PipelineRequest, now: Seconds) -> list[Effect]:
        """Handle a request of the autoscaler, and tell waiting workers of the jobs that should leave."""
        self._jobs_heard.asked(event, request, now)
        gone = [key for key, asker in self._asking.items() if asker.message.job in request.leaving]
        askers = [asker for key in gone if (asker := self._asking.take(key))]
        return [Send(asker.peer, self._jobs_heard.idle(asker.message.job, 0, now), asker.id) for asker in askers]

    def curious(self, ready: int, now: Seconds) -> list[Asker[PipelineRequest]]:
        """Take out the requests of the autoscaler that should be answered now."""
        return self._jobs_heard.answerable(ready, now)

    def jobs(self, leased: Mapping[str, int], now: Seconds) -> dict[str, tuple[int, int]]:
        """Return how many workers of each job wait, and how many hold a task."""
        return self._jobs_heard.jobs([asker.message.job for _, asker in self._asking.items()], leased, now)

    def starts(self) -> dict[str, StartStages]:
        """Return the start stages of the jobs heard of lately."""
        return self._jobs_heard.starts()

    def newest(self) -> Asker[LeaseRequest]:
        """Take out the worker that is served next."""
        return self._asking.newest()[1]

    def lease(self, peer: Peer, question: int, grant: Grant, ttl: float) -> Send:
        """Send a worker its lease."""
        self._unheard[peer] = (grant.task.id, grant.attempt)
        if len(self._unheard) > REMEMBERED:
            del self._unheard[next(iter(self._unheard))]
        return Send(peer, Lease(task=grant.task, attempt=grant.attempt, ttl=ttl), question)

    def heard(self, peer: Peer) -> None:
        """Note that a worker sent a message."""
        self._unheard.pop(peer, None)

    def gone(self, event: Unreachable) -> tuple[TaskId, int] | None:
        """Forget a peer; return the attempt whose lease no worker received."""
        self._asking.forget(event)
        held = self._unheard.pop(event.peer, None)
        return None if held in self._unheard.values() else held

    def expired(self, leased: int, now: Seconds) -> list[Effect]:
        """Answer the workers whose wait is over; `leased` others hold a task."""
        over = self._asking.expired(now)
        workers = len(self._asking) + len(over) + leased
        return [
            Send(asker.peer, self._jobs_heard.idle(asker.message.job, workers - gone, now), asker.id)
            for gone, (_, asker) in enumerate(over)
        ]

    def wake(self) -> float | None:
        """Return when the next wait may be over."""
        return min((time for time in (self._asking.wake(), self._jobs_heard.wake()) if time is not None), default=None)

    def __len__(self) -> int:
        return len(self._asking)
