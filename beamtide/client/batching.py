"""Splits long lists into messages: tasks of a submission, ids of dead letters. Pure."""

from collections.abc import Iterator, Sequence

import msgspec

from beamtide.errors import BadInput
from beamtide.messages import tasks
from beamtide.messages.base import PipelineName, TaskId
from beamtide.messages.dead_letters import DeadLetter

BATCH = 500
LARGEST_TASK = 512 << 10
"""The most bytes of one task, and of one batch of tasks: a message to the distributor has 1 MiB at most."""


def portions(new: Sequence[tasks.Task]) -> Iterator[tuple[tasks.Task, ...]]:
    """Yield tasks in batches that fit into one message to the distributor; BadInput: a task that is too large."""
    portion: list[tasks.Task] = []
    size = 0
    for task in new:
        length = len(msgspec.msgpack.encode(task))
        if length > LARGEST_TASK:
            raise BadInput(f"task {task.id} has {length >> 10} KiB, at most {LARGEST_TASK >> 10} are taken; give it fewer files")
        if portion and (size + length > LARGEST_TASK or len(portion) == BATCH):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(task)
        size += length
    if portion:
        yield tuple(portion)


def batches(letters: Sequence[DeadLetter]) -> Iterator[tuple[PipelineName, tuple[TaskId, ...]]]:
    """Yield the ids of tasks by pipeline, in batches that a buffer handles quickly."""
    for pipeline in {letter.task.pipeline for letter in letters}:
        names = tuple(letter.task.id for letter in letters if letter.task.pipeline == pipeline)
        for at in range(0, len(names), BATCH):
            yield pipeline, names[at : at + BATCH]
