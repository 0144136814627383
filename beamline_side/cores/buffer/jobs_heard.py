"""Which jobs have workers here, and which should stay.

Theory: the autoscaler sends a long-poll request, which is answered when the queue grows quickly, or when its wait is over. The
request says how many idle workers should stay, and which jobs should leave after their present tasks. Both are soft state:
without a new request they are forgotten after `BELIEVED` seconds, and idle workers leave, as they would without an autoscaler. A
worker gets no task if its job will probably end before the task is done (1.2 times the 95th percentile, and a margin).

Clock policy: `now` is the caller's monotonic clock in seconds.
Invariants: a job that should leave gets no task while that request holds; the number of remembered jobs is bounded.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from beamline_side.cores.buffer.rates import Rates
from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamtide.machine import Heard, Peer
from beamtide.messages.scaling import PipelineRequest, StartStages
from beamtide.messages.tasks import LeaseRequest, NoTask

BELIEVED = 5.0
HEARD = 30.0
"""For so many seconds a job without a worker is still reported: it may have come and gone between two reports."""
MOST_JOBS = 4096
MARGIN = 5.0
"""Seconds for sending a result, beyond what a task usually takes."""
FOR_EVER = 1e9
NOTHING = PipelineRequest()


@dataclass(slots=True)
class JobsHeard:
    """The jobs of one buffer, and the requests of the autoscaler."""

    _heard: OrderedDict[str, tuple[float, StartStages | None]] = field(default_factory=OrderedDict)
    _wish: PipelineRequest = NOTHING
    _wished: float = -FOR_EVER
    _questions: PendingRequests[Peer, PipelineRequest] = field(default_factory=PendingRequests)

    def asked(self, event: Heard, message: PipelineRequest, now: float) -> None:
        """Handle a request of the autoscaler."""
        self._wish, self._wished = message, now
        self._questions.add(event.peer, event, message, now, message.wait)

    def came(self, request: LeaseRequest, rates: Rates, now: float) -> NoTask | None:
        """Note that a worker asks for a task; return the answer if it should get none."""
        self._heard[request.job] = (now, request.stages)
        self._heard.move_to_end(request.job)
        while len(self._heard) > MOST_JOBS:
            self._heard.popitem(last=False)
        if self.leaves(request.job, now):
            return NoTask(leave=True, reason="the job is not wanted any more")
        if request.left > 0 and request.left < 1.2 * (longest := rates.percentile(95)) + MARGIN:
            return NoTask(leave=True, reason=f"{request.left:.0f} s are left, a task takes up to {longest:.0f} s")
        return None

    def idle(self, job: str, workers: int, now: float) -> NoTask:
        """Return the answer to a worker whose wait is over; there are `workers` workers, itself included."""
        wish = self._believed(now)
        return NoTask(linger=FOR_EVER if workers <= wish.keep else wish.linger, leave=job in wish.leaving)

    def leaves(self, job: str, now: float) -> bool:
        """Whether the workers of a job should get no further task."""
        return job in self._believed(now).leaving

    def answerable(self, ready: int, now: float) -> list[Asker[PipelineRequest]]:
        """Take out the autoscaler's requests that should be answered now."""
        jumped = [key for key, asker in self._questions.items() if ready > 2 * asker.message.ready]
        askers = [asker for key in jumped if (asker := self._questions.take(key))]
        return askers + [asker for _, asker in self._questions.expired(now)]

    def jobs(self, waiting: Iterable[str], leased: Mapping[str, int], now: float) -> dict[str, tuple[int, int]]:
        """Return by job how many workers wait (`waiting`: the job of each), and how many hold a task."""
        while self._heard and next(iter(self._heard.values()))[0] < now - HEARD:
            self._heard.popitem(last=False)
        idle = Counter(waiting)
        return {job: (idle[job], leased.get(job, 0)) for job in {*self._heard, *idle, *leased}}

    def starts(self) -> dict[str, StartStages]:
        """Return the start stages of the jobs heard of lately."""
        return {job: stages for job, (_, stages) in self._heard.items() if stages is not None}

    def wake(self) -> float | None:
        """Return when the next request is over."""
        return self._questions.wake()

    def _believed(self, now: float) -> PipelineRequest:
        return self._wish if now - self._wished < BELIEVED else NOTHING
