"""The order in which a buffer leases its tasks: three orderings, each a key that sorts the next task first.

A key is made from the task and its position in the pipeline's journal, so that it is the same after a restart.
"""

from collections.abc import Callable
from typing import TypeAlias

from beamtide.messages.tasks import Task

Key: TypeAlias = tuple[int, int]
Ordering: TypeAlias = Callable[[Task, int], Key]


def fifo(_: Task, seq: int) -> Key:
    """Oldest first: maps fill from their first line on."""
    return (0, seq)


def lifo(_: Task, seq: int) -> Key:
    """Newest first: what is measured now is processed now, the backlog later."""
    return (0, -seq)


def priority(task: Task, seq: int) -> Key:
    """Highest priority number first, oldest first among equals."""
    return (-task.priority, seq)


ORDERINGS: dict[str, Ordering] = {"fifo": fifo, "lifo": lifo, "priority": priority}
