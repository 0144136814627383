"""Fences: "the results of pipeline P for scan S are complete up to index k", answered as soon as that is true.

Theory: the fence follows two versioned lists of others, the sink's products and the metadata server's scans, by long polls from
version 0. Nothing is kept on disk: after a restart the lists are read again, and requests are repeated. A fence is broken when it
can never be reached: the scan ended with fewer points, or the pipeline does not exist.

Clock policy: `now` is the monotonic clock in seconds; a request waits at most as long as it says.
Invariants: per peer, scan, pipeline and settings at most one request waits; no request waits whose answer is known.
"""

from dataclasses import dataclass, field

from beamline_side.cores.pending_requests import Asker, PendingRequests
from beamtide.machine import Effect, Event, Heard, Peer, Send, Unreachable, WakeAt, link
from beamtide.messages.base import Digest, Message, PipelineName, ScanId, Seconds
from beamtide.messages.fences import FenceBroken, FencePending, FenceReached, FenceRequest
from beamtide.messages.metadata import Scans, ScansRequest, ScanState
from beamtide.messages.results import Products, ProductState, WatchRequest
from beamtide.messages.tasks import Need
from beamtide.session import Poll

SINK, METADATA = link("sink"), link("metadata")


@dataclass(slots=True)
class _Followed:
    """How far we have read a versioned list of another component."""

    version: int = 0
    poll: Poll = field(default_factory=Poll)

    def read(self, version: int, now: Seconds) -> None:
        """Note its version; a lower one than ours means that it lost its history, so we start again from 0."""
        self.poll.heard(now, news=version != self.version)
        self.version = 0 if version < self.version else version


@dataclass(slots=True)
class FenceMachine:
    """The core of the fence service."""

    pipelines: frozenset[str]
    _sink: _Followed = field(default_factory=_Followed)
    _metadata: _Followed = field(default_factory=_Followed)
    _products: dict[tuple[ScanId, PipelineName], dict[Digest, ProductState]] = field(default_factory=dict)
    _scans: dict[ScanId, ScanState] = field(default_factory=dict)
    _waiting: PendingRequests[tuple[Peer, ScanId, PipelineName, Digest], FenceRequest] = field(default_factory=PendingRequests)

    def handle(self, event: Event, now: Seconds) -> list[Effect]:
        """Take one event and say what should be done about it."""
        effects: list[Effect] = []
        match event:
            case Heard(peer=peer, message=Products() as news) if peer == SINK:
                effects += self._read_products(news, now)
            case Heard(peer=peer, message=Scans() as news) if peer == METADATA:
                effects += self._read_scans(news, now)
            case Heard(peer=peer, message=FenceRequest() as question):
                effects += self._asked(event, question, now)
            case Unreachable(peer=peer):
                effects += self._unreachable(event, now)
        effects += [self._pending(asker) for _, asker in self._waiting.expired(now)]
        effects += self._poll(now)
        wake = self._waiting.wake()
        return effects if wake is None else [*effects, WakeAt(Seconds(wake))]

    def progress(self) -> dict[str, float]:
        """Return the numbers that `beamtide topology` shows."""
        return {"waiting": len(self._waiting), "products": sum(map(len, self._products.values())), "scans": len(self._scans)}

    def why(self) -> str:
        """Return what the requests wait for."""
        for (_, scan, pipeline, _), asker in self._waiting.items():
            complete = self._complete(scan, asker.message.need)
            return f"{pipeline} of scan {scan} is complete to index {complete} of {asker.message.need.upto}"
        return ""

    def check(self) -> None:
        """Raise if an invariant is broken."""
        assert all(self._answer(asker.message) is None for _, asker in self._waiting.items()), "a known answer was not given"

    def _poll(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        if self._sink.poll.due(now):
            question = WatchRequest(after=self._sink.version, wait=self._sink.poll.wait)
            effects += [Send(SINK, question), self._sink.poll.asked(now)]
        if self._metadata.poll.due(now):
            request = ScansRequest(after=self._metadata.version, wait=self._metadata.poll.wait)
            effects += [Send(METADATA, request), self._metadata.poll.asked(now)]
        return effects

    def _read_products(self, news: Products, now: Seconds) -> list[Effect]:
        self._sink.read(news.version, now)
        for state in news.products:
            known = self._products.setdefault((state.product.scan, state.product.pipeline), {})
            before = known.get(state.product.settings)
            if before is None or state.version >= before.version:
                known[state.product.settings] = state
        return self._answer_known({state.product.scan for state in news.products})

    def _read_scans(self, news: Scans, now: Seconds) -> list[Effect]:
        self._metadata.read(news.version, now)
        for state in news.scans:
            before = self._scans.get(state.scan.id)
            if before is None or state.version >= before.version:
                self._scans[state.scan.id] = state
        return self._answer_known({state.scan.id for state in news.scans})

    def _asked(self, event: Heard, question: FenceRequest, now: Seconds) -> list[Effect]:
        answer = self._answer(question)
        key = (event.peer, question.scan, question.need.pipeline, question.need.settings)
        if answer is not None:
            self._waiting.take(key)
            return [Send(event.peer, answer, event.id)]
        self._waiting.add(key, event, question, now, question.wait)
        return []

    def _unreachable(self, event: Unreachable, now: Seconds) -> list[Effect]:
        for peer, journal in ((SINK, self._sink), (METADATA, self._metadata)):
            if event.peer == peer:
                return [journal.poll.rest(now, 1.0)]
        self._waiting.forget(event)
        return []

    def _answer_known(self, scans: set[ScanId]) -> list[Effect]:
        effects: list[Effect] = []
        for key, asker in self._waiting.items():
            answer = self._answer(asker.message) if asker.message.scan in scans else None
            if answer is not None:
                self._waiting.take(key)
                effects.append(Send(asker.peer, answer, asker.id))
        return effects

    def _answer(self, question: FenceRequest) -> Message | None:
        scan, need = question.scan, question.need
        if need.pipeline not in self.pipelines:
            known = ", ".join(sorted(self.pipelines))
            reason = f"there is no pipeline {need.pipeline!r} to wait for; this site has: {known}"
            return FenceBroken(scan=scan, need=need, reason=reason)
        if (complete := self._complete(scan, need)) >= need.upto:
            return FenceReached(scan=scan, need=need, complete=complete)
        state = self._scans.get(scan)
        if state is not None and state.phase == "ended" and state.points < need.upto:
            reason = f"{need.pipeline} can never be complete to index {need.upto}: scan {scan} ended after {state.points} points"
            return FenceBroken(scan=scan, need=need, reason=reason)
        return None

    def _complete(self, scan: ScanId, need: Need) -> int:
        products = self._products.get((scan, need.pipeline))
        if need.settings:
            return products[need.settings].complete if products and need.settings in products else 0
        return max(products.values(), key=lambda state: state.version).complete if products else 0

    def _pending(self, asker: Asker[FenceRequest]) -> Send:
        question = asker.message
        complete = self._complete(question.scan, question.need)
        return Send(asker.peer, FencePending(scan=question.scan, need=question.need, complete=complete), asker.id)
