"""The cluster side's commands: `work` is what a job runs, `autoscale` starts jobs."""

import os
import pathlib
import platform
import signal
import sys
from typing import Annotated, NoReturn

import typer

from beamtide import lifeline, site
from beamtide.errors import BadInput
from beamtide.screen import DEFAULT_SITE, JsonLog, SiteFile, log_lines

PARENT = "BEAMTIDE_PARENT"


def add_to(app: typer.Typer) -> None:
    """Add our commands."""
    app.command(rich_help_panel="Serve")(work)
    app.command(rich_help_panel="Serve")(autoscale)


def work(  # noqa: PLR0913, PLR0917  one argument per option
    config: SiteFile = DEFAULT_SITE,
    pipeline: Annotated[str, typer.Option(help="Whose tasks to work on.")] = "",
    slots: Annotated[int, typer.Option(min=1, help="Workers at once.")] = 1,
    tasks: Annotated[int, typer.Option(min=0, help="End after this many tasks (0: when idle).")] = 0,
    job: Annotated[str, typer.Option(help="The name of this job.")] = "",
    idle_exit: Annotated[float, typer.Option(min=0, help="End after this many seconds without a task.")] = 5.0,
    bundle: Annotated[
        pathlib.Path | None, typer.Option(help="Only run this failed task again, here (`beamtide dlq export`).")
    ] = None,
    raw: Annotated[pathlib.Path | None, typer.Option(help="Where a bundle's input files lie below.")] = None,
    as_json: JsonLog = False,
) -> None:
    """Be a job: fork workers that take one task each; or see a failed task fail."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    log_lines(as_json=as_json)
    if bundle:
        _reproduce(bundle, raw)
    if not pipeline:
        raise BadInput("say whose tasks to work on: --pipeline NAME; or which failed task to run again: --bundle FILE")
    from cluster_side.worker import life, nursery, recipe  # after the line above: numpy reads it once

    _live_with_parent()
    token = job or os.environ.get("BEAMTIDE_JOB", "") or f"{platform.node()}-{os.getpid()}"
    born = nursery.open_nursery(site.load(config), pipeline, token, idle_exit, recipe.registered)
    end = nursery.Nursery(born, life.Life(slots, tasks)).run()
    if end.reason:
        print(f"beamtide work: {end.reason}", file=sys.stderr)  # noqa: T201
    raise SystemExit(end.code)


def _reproduce(bundle: pathlib.Path, raw: pathlib.Path | None) -> NoReturn:
    from cluster_side.worker import reproduce

    code, text = reproduce.run(bundle, raw)
    print(text, file=sys.stderr if code else sys.stdout)
    raise SystemExit(code)


def autoscale(config: SiteFile = DEFAULT_SITE, as_json: JsonLog = False) -> None:
    """Start jobs while there is work, never more than scaling.caps.jobs."""
    from beamtide.pump import stop_on_signals
    from cluster_side.scaling import autoscaler

    log_lines(as_json=as_json)
    _live_with_parent()
    stopped: list[bool] = []
    stop_on_signals(lambda: stopped.append(True))
    autoscaler.run(site.load(config), lambda: bool(stopped))


def _live_with_parent() -> None:
    if PARENT in os.environ:
        lifeline.die_with(int(os.environ[PARENT]), signal.SIGTERM)
