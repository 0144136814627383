"""Commands around scaling: autoscale, render, jobs, scale, simulate."""

import os
import signal
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, JsonLog, SiteFile, answer, choice, complain, duration, log_lines, say, table
from beamtide.component import parent_death
from beamtide.config import site
from beamtide.errors import BadInput

if TYPE_CHECKING:
    from beamtide.messages.scaling import Jobs, StartStages
    from cluster_side.scaling.autoscaler import Proposal
    from cluster_side.scaling.simulation.batch import Load

PARENT = "BEAMTIDE_PARENT"
SERVE, LOOK, TELL, SETUP = "Serve", "Look", "Tell", "Set up"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=SERVE)(autoscale)
    app.command(rich_help_panel=LOOK)(jobs)
    app.command(rich_help_panel=TELL)(scale)
    app.command(rich_help_panel=SETUP)(render)
    app.command(rich_help_panel=SETUP)(simulate)


def live_with_parent() -> None:
    """End with the process that `BEAMTIDE_PARENT` names, if it names one; the processes that we start have other parents."""
    if parent := os.environ.pop(PARENT, ""):
        parent_death.die_with(int(parent), signal.SIGTERM)


def autoscale(
    config: SiteFile = DEFAULT_SITE,
    once: Annotated[bool, typer.Option("--once", help="Decide and submit once, then end; the jobs stay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted now, and why.")] = False,
    as_json: JsonLog = False,
) -> None:
    """Start jobs while there is work, never more than scaling.caps allow."""
    from beamtide.pump import stop_on_signals
    from cluster_side.scaling import autoscaler

    if once or dry_run:
        deployment = site.load(config)
        _show(autoscaler.propose(deployment) if dry_run else autoscaler.once(deployment), as_json=as_json)
        return
    log_lines(as_json=as_json)
    live_with_parent()
    autoscaler.run(site.load(config), stop_on_signals)


def render(
    what: Annotated[str, typer.Argument(metavar="PIPELINE|MODALITY", help="Whose job to show.")],
    queued: Annotated[int, typer.Option(min=1, help="How many tasks wait.")] = 1,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Print exactly how a job would be started for such a queue, and why; nothing is started."""
    from cluster_side.scaling import autoscaler

    deployment = site.load(config)
    wanted = [name for name, one in deployment.pipelines.items() if what in (name, one.modality)]
    if not wanted:
        choice(what, list(deployment.pipelines), "pipeline or modality")
    _show(autoscaler.propose(deployment, dict.fromkeys(wanted, queued)), as_json=as_json)


def jobs(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """List all jobs, and why there are that many."""
    from beamtide.cli.explain import plain
    from beamtide.client.client import Client

    with Client(config) as client:
        known = client.jobs()
    answer(plain(known), [*_pipelines(known), *_jobs(known)], as_json=as_json)


def _pipelines(known: "Jobs") -> list[str]:
    columns = ("pipeline", "want", "pending", "starting", "working", "start", "why")
    rows = [
        (
            one.pipeline,
            str(one.want),
            str(one.pending),
            str(one.starting),
            str(one.working),
            duration(one.cold_start),
            one.because,
        )
        for one in known.pipelines
    ]
    spent = f"{known.node_hours:.1f} of {known.node_hours_per_day:g} node-hours in 24 h"
    avoided = f"; avoids {', '.join(known.avoided)}" if known.avoided else ""
    lines = [*table(columns, rows), f"{len(known.jobs)} of {known.cap} jobs; {spent}{avoided}"]
    started = [f"{one.pipeline} starts in: {_stages(one.stages)}" for one in known.pipelines if one.stages]
    return lines + started + ([known.trouble] if known.trouble else [])


def _stages(stages: "StartStages") -> str:
    """Return the start stages as text."""
    named = [(name, getattr(stages, name)) for name in stages.__struct_fields__]
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in named if seconds)


def _jobs(known: "Jobs") -> list[str]:
    rows = []
    for one in known.jobs:
        when = f"expected {clock.iso(one.expected_start)}" if one.expected_start else ""
        reason = " ".join(word for word in (one.reason, when) if word)
        rows.append((one.id, one.pipeline, one.state, duration(one.age), reason, ",".join(one.nodes)))
    return table(("job", "pipeline", "state", "age", "reason", "nodes"), rows)


def scale(  # noqa: PLR0913, PLR0917  one argument per option
    pipeline: Annotated[str, typer.Argument(help="The pipeline.")],
    most: Annotated[
        int | None, typer.Option("--max", min=0, help="The most jobs that it may have (default: the site's caps).")
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="No new job, and the others leave after their task.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Remove the limit or pause.")] = False,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Limit or pause the jobs of a pipeline. This holds until it is changed, also after a restart."""
    from beamtide.client.client import Client

    if (most is not None) + pause + resume != 1:
        raise BadInput("say one of --max N, --pause and --resume")
    with Client(config) as client:
        choice(pipeline, list(client.deployment.pipelines), "pipeline")
        client.scale(pipeline, most=-1 if most is None else most, paused=pause)
    now = (
        "is paused"
        if pause
        else f"may have {most} jobs"
        if most is not None
        else "may have as many jobs as the site's caps allow"
    )
    answer({"pipeline": pipeline, "max": most, "paused": pause}, [f"{pipeline} {now}."], as_json=as_json)


def simulate(  # noqa: PLR0913, PLR0917  one argument per option
    trace: Annotated[str, typer.Option(help="steady, burst, mixed, heldout, unseen, or all.")] = "all",
    load: Annotated[str, typer.Option(help="How busy the cluster is: idle, normal or busy.")] = "normal",
    seeds: Annotated[int, typer.Option(min=1, help="Runs per trace.")] = 1,
    preempted: Annotated[float, typer.Option(min=0, help="Preemptions per hour of a running job.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs that the cluster takes (MaxSubmitJobs).")] = 1000,
    as_json: Json = False,
) -> None:
    """Run the real autoscaler against a simulated Slurm, and print latency, waste and calls."""
    from cluster_side.scaling.simulation import show
    from cluster_side.scaling.simulation.batch import WAITS
    from cluster_side.scaling.simulation.traces import TRACES

    choice(load, list(WAITS), "load")
    names = list(TRACES) if trace == "all" else [choice(trace, list(TRACES), "trace") or trace]
    rows = [show.averaged(name, cast("Load", load), seeds, {"preempted_per_hour": preempted, "most": limit}) for name in names]
    answer({"runs": rows}, table(show.COLUMNS, [show.cells(row) for row in rows]), as_json=as_json)


def _show(proposals: "list[Proposal]", *, as_json: bool) -> None:
    """Print scripts to the standard output, and the reasons beside it."""
    value: list[dict[str, Any]] = []
    for one in proposals:
        order = one.order
        jobs_wanted = {"jobs": order.count, "slots": order.slots, "tasks": order.tasks} if order else {"jobs": 0}
        value.append({"pipeline": one.pipeline, "because": one.because, **jobs_wanted, "script": one.script})
        if not as_json:
            complain(f"{one.pipeline}: {one.because}" + (f" ({order.count} jobs, {order.tasks} tasks each)" if order else ""))
            if one.script:
                say(one.script)
    if as_json:
        answer({"orders": value}, (), as_json=True)
