"""Workers that ask for a task: they wait here, and each lease that was sent is noted until its worker is heard of again.

Theory: the newest idle worker is served first, so that the others grow old and their jobs can end. A lease whose worker is
gone before it heard of it comes back at once, unless the worker asked again over another connection and has it there.

Clock policy: `now` is the caller's monotonic clock. Invariant: a worker waits once, with its latest question.
"""

from dataclasses import dataclass, field

from beamline_side.cores.deferred import Asker, Deferred
from beamline_side.cores.ticket import Grant
from beamtide.machine import Effect, Heard, Peer, Send, Unreachable
from beamtide.messages.base import Seconds, TaskId
from beamtide.messages.tasks import Lease, LeaseRequest, NoTask

REMEMBERED = 8192


@dataclass(slots=True)
class IdleWorkers:
    """Who waits, and who may not have heard of its lease."""

    _asking: Deferred[str, LeaseRequest] = field(default_factory=Deferred)
    _unheard: dict[Peer, tuple[TaskId, int]] = field(default_factory=dict)

    def ask(self, event: Heard, request: LeaseRequest, now: Seconds) -> None:
        """Let a worker wait."""
        self._asking.add(request.worker, event, request, now, request.wait)

    def newest(self) -> tuple[str, Asker[LeaseRequest]]:
        """Take out the one that is served next."""
        return self._asking.newest()

    def lease(self, peer: Peer, question: int, grant: Grant, ttl: float) -> Send:
        """Tell a worker what it holds."""
        self._unheard[peer] = (grant.task.id, grant.attempt)
        if len(self._unheard) > REMEMBERED:
            del self._unheard[next(iter(self._unheard))]
        return Send(peer, Lease(task=grant.task, attempt=grant.attempt, ttl=ttl), question)

    def heard(self, peer: Peer) -> None:
        """Note that a worker speaks."""
        self._unheard.pop(peer, None)

    def gone(self, event: Unreachable) -> tuple[TaskId, int] | None:
        """Forget a peer; return the attempt that nobody knows of now."""
        self._asking.forget(event)
        held = self._unheard.pop(event.peer, None)
        return None if held in self._unheard.values() else held

    def expired(self, now: Seconds) -> list[Effect]:
        """Tell those who waited long enough that there is nothing."""
        return [Send(asker.peer, NoTask(), asker.id) for _, asker in self._asking.expired(now)]

    def wake(self) -> float | None:
        """Return when somebody may have waited long enough."""
        return self._asking.wake()

    def __len__(self) -> int:
        return len(self._asking)
