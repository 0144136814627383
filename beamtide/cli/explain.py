"""`beamtide explain`: the state of each pipeline and job in one line, and why something waits.

It puts together what the services answer; a service that does not answer gets a line, too.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, duration, states_of
from beamtide.errors import NoAnswer

if TYPE_CHECKING:
    from beamtide.client.client import Client
    from beamtide.client.snapshot import PipelineRow, Snapshot
    from beamtide.messages.dead_letters import DeadLetter
    from beamtide.messages.scaling import JobReport, Jobs, PipelineReport

MOST_JOBS = 12
"""More jobs than this are counted by state and reason instead of listed."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(explain)


def explain(
    scan: Annotated[str, typer.Argument(help="The scan (default: the newest).")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Explain the state of each pipeline and job in one line, and why something waits."""
    from beamtide.client.client import Client
    from beamtide.client.snapshot import newest_scan, snapshot

    with Client(config) as client:
        name = newest_scan(client, scan)
        shot = snapshot(client, name)
        jobs, silence = _jobs(client)
        letters = [letter for letter in client.dead_letters() if letter.task.scan == name]
        sources = _sources(client, name) if name else {}
    value: dict[str, Any] = {"scan": name, "pipelines": shot.as_json(), "jobs": plain(jobs) if jobs else None}
    value["dead"] = [letter.task.id for letter in letters]
    told = [f"{pipeline:<10}reads {source}" for pipeline, source in sources.items()]
    answer(value | {"trouble": silence, "sources": sources}, [*lines(shot, jobs, letters, silence), *told], as_json=as_json)


def lines(shot: "Snapshot", jobs: "Jobs | None", letters: "Sequence[DeadLetter]", silence: str = "") -> list[str]:
    """Return the lines; `silence` says why the jobs are not known."""
    pipelines = {str(pipeline.pipeline): pipeline for pipeline in jobs.pipelines} if jobs else {}
    found = [f"{shot.scan or 'no scan yet'}"]
    for name, row in shot.pipelines.items():
        mine = [job for job in jobs.jobs if job.pipeline == name] if jobs else []
        notes = [text for part in ("buffer", "sorter") if (text := shot.notes.get(f"{part}.{name}"))]
        found.append(f"{name:<10}{_pipeline(row, pipelines.get(name), mine, notes)}")
        found += [f"{'':<10}{line}" for line in _each(mine)]
    others = {name: why for name, why in shot.notes.items() if not name.startswith(("buffer.", "sorter."))}
    found += [f"{name:<10}{why}" for name, why in others.items()]
    found += [f"{'jobs':<10}{text}" for text in (silence, jobs.trouble if jobs else "") if text]
    return found + _dead(letters)


def _sources(client: "Client", scan: str) -> dict[str, str]:
    """Return what the present products of a scan are read from, as words."""
    from beamtide.errors import BadInput

    found = {}
    for pipeline, digest in client.settings_now(scan).items():
        with contextlib.suppress(BadInput):  # the server has not got them yet
            stated = json.loads(client.settings(digest).source or "{}")
            if "match" in stated:
                options = ", ".join(f"{name}: {value}" for name, value in stated["options"].items())
                found[pipeline] = f"{stated['match']} as {stated['format']}" + (f" ({options})" if options else "")
    return found


def plain(known: "Jobs") -> dict[str, Any]:
    """Return the answer of the autoscaler as plain values with names."""
    return {name: _plain(getattr(known, name)) for name in known.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _jobs(client: "Client") -> "tuple[Jobs | None, str]":
    try:
        return client.jobs(), ""
    except NoAnswer:
        return None, "the autoscaler does not answer, so no new jobs are started; is `beamtide autoscale` running?"


def _pipeline(row: "PipelineRow", pipeline: "PipelineReport | None", jobs: "Sequence[JobReport]", notes: list[str]) -> str:
    if row.finished:
        quality = f" {_sentence(row.quality)}" if row.quality else ""
        return f"finished. {row.total} tasks: {states_of(row)}.{quality}"
    parts = [f"{row.total or '?'} tasks: {states_of(row)}."]
    if pipeline is not None:
        there = pipeline.pending + pipeline.starting + pipeline.working
        parts.append(f"{pipeline.working} of {there} jobs work{_waiting(jobs)}. {_sentence(pipeline.because)}")
    parts += [_sentence(note) for note in notes]
    if row.to_go:
        parts.append(f"About {duration(row.to_go)} to go.")
    return " ".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _waiting(jobs: "Sequence[JobReport]") -> str:
    pending = [job for job in jobs if job.state == "pending"]
    if not pending:
        return ""
    reasons = Counter(job.reason for job in pending if job.reason)
    said = f": the batch system says {reasons.most_common(1)[0][0]}" if reasons else ""
    starts = [job.expected_start for job in pending if job.expected_start]
    first = f", first start expected {clock.iso(min(starts))}" if starts else ""
    return f"; {len(pending)} wait{said}{first}"


def _each(jobs: "Sequence[JobReport]") -> list[str]:
    if len(jobs) > MOST_JOBS:
        counted = Counter((job.state, job.reason) for job in jobs)
        return [f"{count} jobs {state}" + (f": {reason}" if reason else "") for (state, reason), count in counted.items()]
    found = []
    for job in jobs:
        where = f" on {','.join(job.nodes)}" if job.nodes else ""
        when = f", expected to start {clock.iso(job.expected_start)}" if job.expected_start else ""
        why = f": {job.reason}" if job.reason else ""
        found.append(f"job {job.id} {job.state}{where} for {duration(job.age)}{why}{when}")
    return found


def _dead(letters: "Sequence[DeadLetter]") -> list[str]:
    if not letters:
        return []
    first = letters[0]
    text = f"{len(letters)} task{'s' if len(letters) > 1 else ''}, the last {first.task.id}: {first.reason}"
    return [f"{'dead':<10}{text}. Retry: beamtide dlq retry {first.task.id}"]
