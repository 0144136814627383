"""Tasks that were given up although their range is known here: whether they have a result.

Theory: a worker may die between storing its result and saying so. Should its task be given up after that, the result is visible
all the same, and whoever gave the task up must hear of it. The sink decides: what was released is asked of it by passing the
verdict on (it may be the newer reason of a hole, or change nothing), and its answer says what it keeps. What waits here to be
released will be kept as it is. A verdict that cannot be judged yet has no answer; nothing of it is kept, for the buffer repeats
it until it has one.

No clock. Invariant: `StoredBefore` is said of a result that is, or will be, visible; `Ok` where none can ever be.
"""

from dataclasses import dataclass, field

from beamline_side.cores.sorter.corrections import SINK
from beamtide import codec
from beamtide.machine import Effect, Heard, Peer, Send, Shelf
from beamtide.messages.base import Ok, TaskId
from beamtide.messages.results import Release, Released, StoredBefore, StoreRequest


@dataclass(slots=True)
class GivenUpTasks:
    """The questions that the sink has not answered."""

    shelf: Shelf
    _askers: dict[TaskId, tuple[Peer, int, int]] = field(default_factory=dict)
    """Who asked, in which message, and about which generation."""

    def ask(self, event: Heard, request: StoreRequest) -> list[Effect]:
        """Pass on that a task was given up whose range was released."""
        self._askers[request.task.id] = event.peer, event.id, request.task.generation
        return [Send(SINK, Release(result=request))]

    def answered(self, answer: Released) -> list[Effect]:
        """Take what the sink says; what it said of another generation may be old."""
        peer, number, generation = self._askers.get(answer.task, (b"", 0, -1))
        if generation != answer.generation:
            return []
        del self._askers[answer.task]
        return [_said(peer, number, answer)]

    def look(self, event: Heard, request: StoreRequest) -> list[Effect]:
        """Answer for a range that waits to be released, unless it is a hole whose newer reason the sink must have."""
        there = codec.unpack(self.shelf.read("payload", request.task.id)).message
        assert isinstance(there, StoreRequest)
        if there.outcome == "abandoned" and there.task.generation < request.task.generation:
            return []
        return [_said(event.peer, event.id, Released(task=request.task.id, outcome=there.outcome))]


def _said(peer: Peer, number: int, answer: Released) -> Send:
    if answer.outcome == "" or answer.outcome == "abandoned":  # noqa: PLR1714 - so that mypy knows what is left
        return Send(peer, Ok(note=answer.task), number)
    return Send(peer, StoredBefore(task=answer.task, outcome=answer.outcome), number)
