"""A part of a task: fewer of its indexes, with their frames. Pure.

A task of the whole scan cannot be cut: what is left of it is void, and says so.
"""

import msgspec

from beamtide.messages.tasks import InputFile, Task

WHOLE = (
    "the task of the whole scan came when other indexes had tasks of their own, with these settings: reprocess the scan with "
    "frames_per_task as it was, or with other settings"
)


def cut(task: Task, start: int, stop: int) -> Task:
    """Return the task for indexes `start <= index < stop` only, which lie inside of its own; the same part has the same id."""
    frames = sum(one.last - one.first for one in task.inputs)
    whole = not task.void and (bool(task.shape) or frames != task.stop - task.start)
    own = f"{task.start:06d}-{task.stop:06d}"
    part = f"{start:06d}-{stop:06d}"
    return msgspec.structs.replace(
        task,
        id=task.id.removesuffix(own) + part if task.id.endswith(own) else f"{task.id}/{part}",
        start=start,
        stop=stop,
        inputs=() if whole else _cut_inputs(task, start, stop),
        needs=tuple(msgspec.structs.replace(need, upto=min(need.upto, stop)) for need in task.needs),
        void=WHOLE if whole else task.void,
        shape=(),
    )


def _cut_inputs(task: Task, start: int, stop: int) -> tuple[InputFile, ...]:
    found, at = [], task.start
    for one in task.inputs:
        low, high = max(start, at), min(stop, at + one.last - one.first)
        if low < high:
            found.append(msgspec.structs.replace(one, first=one.first + low - at, last=one.first + high - at))
        at += one.last - one.first
    return tuple(found)
