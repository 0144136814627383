"""The seven states of a point, and how many tasks are in each of them. Pure.

Theory: a point of a scan is in exactly one state in each pipeline. The points of a task share its state, so what is counted are
tasks, and the seven counts add up to all tasks of the scan, also those that nobody has asked for yet.

The distributor counts each scan's tasks and verdicts exactly. A buffer counts the tasks of all scans together: as long as another
scan has open tasks in the same pipeline, some of what is shown as running or retrying may belong to that scan; it is never more
than this scan has open. `docs/states.md` says what each state means.
"""

from collections.abc import Iterable

from beamtide.messages.tasks import Tally

STATES = ("not_asked", "queued", "running", "retrying", "done", "empty", "abandoned")
"""In the order in which a point can pass through them; the last three are verdicts."""
OPEN = STATES[:4]


def said(state: str) -> str:
    """Return a state as people read it."""
    return state.replace("_", " ")


def counted(planned: int, tallies: Iterable[Tally], leased: int, retrying: int) -> dict[str, int]:
    """Return how many tasks of one scan in one pipeline are in each state; they add up to all, `planned` or more.

    `planned`: how many tasks the scan will have (0: not known yet); `leased`, `retrying`: tasks of the pipeline's buffer that a
    worker holds, and that were leased before and wait.
    """
    submitted = done = empty = abandoned = 0
    for tally in tallies:
        submitted += tally.submitted
        done, empty, abandoned = done + tally.results, empty + tally.empty, abandoned + tally.abandoned
    waiting = submitted - done - empty - abandoned
    running = min(leased, waiting)
    again = min(retrying, waiting - running)
    counts = (max(0, planned - submitted), waiting - running - again, running, again, done, empty, abandoned)
    return dict(zip(STATES, counts, strict=True))
