"""Draws the state diagrams of docs/states.md from the tables of the code: `make diagrams`."""

import enum
import pathlib
import re
import sys
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from beamline_side.cores.buffer import task_states  # noqa: E402
from cluster_side.scaling.jobs import states as job_states  # noqa: E402

PAGE = ROOT / "docs" / "states.md"


def diagram(begins: Mapping[str, enum.Enum], changes: Mapping[tuple[enum.Enum, enum.Enum], enum.Enum]) -> str:
    """Return a Mermaid state diagram: arrows between the same two states become one; who is left by none has an end."""
    states = list(dict.fromkeys(state for (before, _), after in changes.items() for state in (before, after)))
    arrows: dict[tuple[str, str], list[str]] = {}
    for fact, state in begins.items():
        arrows.setdefault(("[*]", state.name), []).append(fact)
    for (before, cause), after in changes.items():
        arrows.setdefault((before.name, after.name), []).append(cause.value)
    arrows |= {(state.name, "[*]"): [] for state in states if not any(before is state for before, _ in changes)}
    names = [f'    state "{state.value}" as {state.name}' for state in states]
    lines = [f"    {one} --> {other}" + (f": {', '.join(facts)}" if facts else "") for (one, other), facts in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *names, *lines, "```"])


def drawn(page: str) -> str:
    """Return a page with its diagrams drawn again between their markers."""
    found = {
        "jobs": diagram({"order submitted": job_states.JobState.ASKED}, job_states.TRANSITIONS),
        "tasks": diagram({fact.value: state for fact, state in task_states.ARRIVALS.items()}, task_states.CHANGES),
        "leases": diagram({"a worker takes the task": task_states.LeaseState.HELD}, task_states.LEASE),
    }
    for name, text in found.items():
        markers = re.compile(f"(<!-- diagram: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert markers.search(page), f"docs/states.md has no place for the diagram of {name}"
        page = markers.sub(lambda place, text=text: f"{place[1]}{text}\n{place[2]}", page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
