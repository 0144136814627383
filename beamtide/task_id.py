"""The name of a task: it says which work it stands for, so the same work always has the same name. Pure."""

from beamtide.messages.base import TaskId


def task_id(scan: str, pipeline: str, settings: str, start: int, stop: int) -> TaskId:
    """Return the id of indexes `start <= index < stop` of a scan in a pipeline, computed with the settings of this digest."""
    return TaskId(f"{scan}/{pipeline}/{settings[:8]}/{start:06d}-{stop:06d}")
