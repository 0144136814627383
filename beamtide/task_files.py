"""Tasks as JSON files, as `beamtide submit` takes them."""

import json
import pathlib
from typing import Any

from beamtide.errors import BadInput


def read_tasks(file: pathlib.Path) -> list[Any]:
    """Return the tasks of a JSON file. BadInput says which entry is wrong, and how."""
    import msgspec

    from beamtide.messages.tasks import InputFile, Need, Task
    from beamtide.task_id import task_id

    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{file}: expected a list with at least one task: [{{...}}]")
    found = []
    for position, one in enumerate(listed):
        try:
            inner = {
                "inputs": [InputFile(**_unstamped(each)) for each in one["inputs"]],
                "needs": [Need(**each) for each in one.get("needs", [])],
            }
            name = task_id(one["scan"], one["pipeline"], one["settings"], int(one["start"]), int(one["stop"]))
            values = {"id": name, **one, **inner}
            found.append(msgspec.convert(msgspec.to_builtins(Task(**values)), Task))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise BadInput(f"{file}, task {position}: {error}; see docs/tutorial.md for an example") from error
    return found


def _unstamped(given: dict[str, Any]) -> dict[str, Any]:
    """Return an input without what its file once was: whoever hands in a task means the file as it is now, or a copy of it."""
    return {key: value for key, value in given.items() if key != "was"}
