"""Previews: what a kernel reports while it computes, progress for the heartbeat and datasets for the sink.

The task never waits for a preview: the sink has a second to take it; after a failure none is sent for half a minute.

Clock policy: durations from `beamtide.clock`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from beamtide import clock
from beamtide.errors import BeamtideError
from beamtide.machine import Arrays
from beamtide.messages import Message
from beamtide.messages.previews import PreviewTold
from beamtide.messages.results import product_of
from beamtide.messages.tasks import Task
from beamtide.pump import Caller
from cluster_side.modalities.base import Output, checked

PATIENCE, REST = 1.0, 30.0
"""Seconds for the sink to take a preview, and of rest after a failure."""


@dataclass(frozen=True, slots=True)
class PreviewTarget:
    """The destination of a task's previews: the sink's address, the attempt, and the declared outputs."""

    sink: str
    attempt: int
    declared: tuple[Output, ...]


def teller(task: Task, caller: Caller, stage: PreviewTarget, progress: list[float]) -> Callable[[Arrays, float], None]:
    """Return the function with which a kernel's context reports."""
    product = product_of(task)
    rests_until = [0.0]

    def tell(datasets: Arrays, share: float) -> None:
        progress[0] = share
        if not datasets or clock.monotonic() < rests_until[0]:
            return
        headers = checked(datasets, stage.declared, task.stop - task.start)
        told = PreviewTold(product=product, attempt=stage.attempt, progress=share, datasets=headers)
        try:
            caller.converse(stage.sink, told, Message, arrays=datasets, patience=PATIENCE)
        except BeamtideError:
            rests_until[0] = clock.monotonic() + REST

    return tell
