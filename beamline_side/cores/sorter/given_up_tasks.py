"""Given-up tasks: tasks that were abandoned although a verdict for their range is known here: whether they have a result.

Theory: a worker may die between storing its result and reporting it. If that task is then given up, the stored result remains
visible; tell whoever gave it up. The sink decides about ranges that were released: the verdict is passed on to it (it may be the
newer reason of a hole, or change nothing), and its answer says what it keeps. Ranges that wait here will be released as they are.
A verdict that cannot be judged yet gets no answer and is not kept, because the buffer repeats it until it gets one.

No clock. Invariant: `StoredBefore` is answered if a result is, or will be, visible; `Ok` if none ever can be.
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
    """The peer that asked, its message id, and the generation."""

    def ask(self, event: Heard, request: StoreRequest) -> list[Effect]:
        """Pass on to the sink that a task was abandoned whose range was released."""
        self._askers[request.task.id] = event.peer, event.id, request.task.generation
        return [Send(SINK, Release(result=request))]

    def answered(self, answer: Released) -> list[Effect]:
        """Handle the sink's answer; one about another generation may be old and is ignored."""
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
