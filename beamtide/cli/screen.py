"""What commands print: a JSON object for programs, sentences and tables for people. Colours only repeat what the text says.

rich is imported when something is drawn, so that `beamtide --help` stays quick.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from beamtide import clock
from beamtide.errors import BadInput
from beamtide.point_states import STATES, said

if TYPE_CHECKING:
    from rich.console import Group

    from beamtide.client.snapshot import PipelineRow, Snapshot

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
JsonLog = Annotated[bool, typer.Option("--json", help="Log one JSON object a line instead of text.")]
SiteFile = Annotated[
    pathlib.Path,
    typer.Option("--config", "-c", envvar="BEAMTIDE_SITE", help="The site file.", show_default=True, metavar="SITE.yaml"),
]
REASONS = 3
"""How many reasons of abandoned tasks are shown; the result file has all of them."""
PACE = 2.0
"""Seconds between two lines about the same pipeline, where there is no terminal."""
DEFAULT_SITE = pathlib.Path("site.yaml")
AFTER = ("workers", "rate", "oldest", "to go")
WIDTHS = {"pipeline": 10, "queued": 6, "running": 7, "done": 9, "workers": 7, "rate": 9, "oldest": 6, "to go": 6}
"""Smallest column widths, so that the table does not jump while numbers grow."""
ALWAYS = ("queued", "running", "done")
"""States that always have a column; the others only while a task is in them."""


def say(text: str) -> None:
    """Write one line to the standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write one line to the standard error output."""
    sys.stderr.write(text + "\n")


def answer(value: dict[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the result of a command: a JSON object, or the same as text."""
    if as_json:
        say(json.dumps(value, default=str))
    else:
        for line in lines:
            say(line)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns; numbers are aligned to the right."""
    if not rows:
        return []
    widths = [max(len(row[position]) for row in (columns, *rows)) for position in range(len(columns))]
    numeric = [all(row[position][:1].isdigit() or row[position] in {"", "—"} for row in rows) for position in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (columns, *rows)
    ]


def duration(seconds: float) -> str:
    """Return a time as people say it: "0.4 s", "11 s", "3 min", "2.5 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def columns_of(shot: "Snapshot") -> tuple[str, ...]:
    """Return the columns of a snapshot's table, by their names in `cells`."""
    rows = shot.pipelines.values()
    states = (state for state in STATES if state in ALWAYS or any(getattr(row, state) for row in rows))
    return ("pipeline", *states, *AFTER)


def cells(name: str, row: "PipelineRow") -> dict[str, str]:
    """Return one pipeline of a snapshot as the cells of a line, by column."""
    return {
        "pipeline": name,
        **{state: str(getattr(row, state)) for state in STATES},
        "done": f"{row.done}/{row.total or '?'}",
        "workers": str(row.workers),
        "rate": f"{row.rate:.3g} pt/s" if 0 < row.rate < 100 else f"{row.rate:.0f} pt/s" if row.rate else "—",
        "oldest": duration(row.oldest) if row.oldest else "—",
        "to go": "finished" if row.finished else duration(row.to_go) if row.to_go else "—",
    }


def states_of(row: "PipelineRow") -> str:
    """Return how many tasks are in each state, in words; states without any are left out."""
    return ", ".join(f"{count} {said(state)}" for state in STATES if (count := getattr(row, state))) or "none"


def lines_of(shot: "Snapshot") -> list[str]:
    """Return a snapshot as text: the table, the autoscaler's reasons, and what waits and why."""
    columns = columns_of(shot)
    drawn = [cells(name, row) for name, row in shot.pipelines.items()]
    found = table([said(column) for column in columns], [[one[column] for column in columns] for one in drawn])
    thoughts = shot.autoscaler.split("; ") if shot.autoscaler else []
    found += [f"{'' if number else 'autoscaler':<12}{thought}" for number, thought in enumerate(thoughts)]
    return found + remarks_of(shot)


def remarks_of(shot: "Snapshot") -> list[str]:
    """Return what waits and why, what was abandoned, and what reconstructions say of themselves."""
    found = [f"{name}: {why}" for name, why in shot.notes.items()]
    for name, row in shot.pipelines.items():
        if row.abandoned:
            found.append(f"{name}: {row.abandoned} of {row.total} tasks abandoned")
            found += [f"  {reason}" for reason in row.reasons[-REASONS:]]
        if row.quality:
            found.append(f"{name}: {row.quality}")
    return found


@contextlib.contextmanager
def progress(*, quiet: bool) -> "Iterator[Callable[[Snapshot], None]]":
    """Show snapshots as they come: a live table on a terminal, a line for each change elsewhere, nothing when quiet."""
    if quiet:
        yield lambda _: None
    elif not sys.stdout.isatty():
        yield _ProgressLines().show
    else:
        from rich.live import Live

        with Live(refresh_per_second=8) as live:
            yield lambda shot: live.update(_drawn(shot))


def choice(value: str, known: Sequence[str], what: str) -> str:
    """Return `value` if it is known; BadInput lists the known values."""
    if value not in known:
        raise BadInput(f"there is no {what} {value!r}; known: {', '.join(known) or 'none'}")
    return value


class _ProgressLines:
    """Prints a line when a pipeline or the autoscaler has news, at most one every `PACE` seconds each."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._next: dict[str, float] = {}

    def show(self, shot: "Snapshot") -> None:
        for name, row in shot.pipelines.items():
            if row.total:
                shown = cells(name, row)
                ahead = "" if row.finished else f"; {row.workers} workers, {shown['rate']}, to go {shown['to go']}"
                line = f"{name}: {row.total} tasks: {states_of(row)}{ahead}"
                self._news(name, line, news=str(row.closed), now=row.finished)
        self._news("autoscaler", f"autoscaler  {shot.autoscaler}", news=shot.autoscaler)
        durability = shot.notes.get("durability", "")
        self._news("durability", f"durability: {durability}", news=durability)

    def _news(self, about: str, line: str, news: str, *, now: bool = False) -> None:
        moment = clock.monotonic()
        if news and news != self._said.get(about, "") and (now or moment >= self._next.get(about, 0.0)):
            self._said[about], self._next[about] = news, moment + PACE
            say(line)


def _drawn(shot: "Snapshot") -> "Group":
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=f"Beamtide · {shot.scan}", title_justify="left")
    columns = columns_of(shot)
    for column in columns:
        justify: Literal["left", "right"] = "left" if column == "pipeline" else "right"
        drawn.add_column(said(column), justify=justify, no_wrap=True, min_width=WIDTHS.get(column))
    for name, row in shot.pipelines.items():
        drawn.add_row(*(cells(name, row)[column] for column in columns))
    below = lines_of(shot)[len(shot.pipelines) + 1 :]
    return Group(drawn, *(Text(f"  {line}") for line in below))


def log_line(level: str, event: str, facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Write one line of a log as `log_lines` has it, without structlog: its import takes a fifth of the start of a job."""
    if as_json:
        say(json.dumps({**facts, "event": event, "level": level, "timestamp": clock.iso()}))
    else:
        say(" ".join([clock.iso(), f"[{level}]", event, *(f"{name}={value}" for name, value in facts.items())]))


def log_lines(*, as_json: bool) -> None:
    """Make a long-lived process log one JSON object per line, for a log collector."""
    if as_json:
        import structlog

        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ]
        )
