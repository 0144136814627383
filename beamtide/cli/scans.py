"""Commands that tell the services something: submit, cancel, scan start|stop|list."""

import pathlib
from typing import Annotated

import typer

from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, choice, table
from beamtide.errors import BadInput
from beamtide.task_files import read_tasks

TELL = "Tell"
Shape = Annotated[str, typer.Option("--shape", help="Points of the scan, slow x fast: 41x41, or 200 for a line.")]

Snake = Annotated[bool, typer.Option("--snake", help="Every second line runs backwards (seen in positions, too).")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    scans = typer.Typer(help="Start, stop and list scans.", no_args_is_help=True)
    scans.command("start")(scan_start)
    scans.command("stop")(scan_stop)
    scans.command("list")(scan_list)
    app.add_typer(scans, name="scan", rich_help_panel=TELL)
    app.command(rich_help_panel=TELL)(submit)
    app.command(rich_help_panel=TELL)(cancel)


def parse_shape(text: str) -> tuple[int, ...]:
    """Return "11x101" as (11, 101)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise BadInput(f"--shape {text}: write it as slow x fast, for example 11x101, or as one number for a line")
    return tuple(int(part) for part in parts)


def submit(
    file: Annotated[pathlib.Path, typer.Argument(help="JSON: a list of tasks.")],
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Submit tasks to the distributor. Submitting the same tasks twice changes nothing."""
    from beamtide.client.client import Client

    tasks = read_tasks(file)
    with Client(config) as client:
        client.submit(tasks)
    answer({"submitted": [task.id for task in tasks]}, [f"{len(tasks)} tasks are on the distributor's disk."], as_json=as_json)


def cancel(
    scan: Annotated[str, typer.Argument(help="The scan.")],
    pipeline: Annotated[str, typer.Option(help="Only this pipeline.")] = "",
    reason: Annotated[str, typer.Option(help="Written into the results.")] = "cancelled",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Abandon all open tasks of a scan. Results that exist stay."""
    from beamtide.client.client import Client

    with Client(config) as client:
        if pipeline:
            choice(pipeline, list(client.deployment.pipelines), "pipeline")
        client.cancel(scan, pipeline, reason)
    answer({"cancelled": scan, "pipeline": pipeline}, [f"{scan}: open tasks end as abandoned ({reason})."], as_json=as_json)


def scan_start(  # noqa: PLR0913, PLR0917 - the options of a command
    scan: Annotated[str, typer.Argument(help="The name of the scan, as in the names of its files.")],
    shape: Shape,
    axes: Annotated[str, typer.Option(help="Motors, slowest first: scanv,scanu.")] = "",
    snake: Snake = False,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Tell the metadata server that a scan runs now."""
    from beamtide.client.client import Client
    from beamtide.messages.base import ScanId
    from beamtide.messages.metadata import Scan
    from beamtide.results.layout import checked

    started = Scan(id=ScanId(checked(scan)), shape=parse_shape(shape), axes=tuple(axes.split(",")) if axes else (), snake=snake)
    with Client(config) as client:
        client.scan_started(started)
    answer({"started": scan, "shape": started.shape}, [f"{scan} runs. Follow it: beamtide watch {scan}"], as_json=as_json)


def scan_stop(
    scan: Annotated[str, typer.Argument(help="The scan.")],
    points: Annotated[int, typer.Option(help="How many points were measured (default: as planned).")] = -1,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Tell the metadata server that a scan has ended. What was measured is still processed."""
    from beamtide.client.client import Client

    with Client(config) as client:
        client.scan_ended(scan, points)
    answer({"ended": scan, "points": points}, [f"{scan} has ended; its results will be complete soon."], as_json=as_json)


def scan_list(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """List the scans that the metadata server knows."""
    from beamtide import clock
    from beamtide.client.client import Client

    with Client(config) as client:
        known = client.scans()
    rows = [
        (
            one.scan.id,
            one.phase,
            "x".join(map(str, one.scan.shape)),
            str(one.points),
            clock.iso(one.started) if one.started else "",
        )
        for one in known
    ]
    names = ("scan", "phase", "shape", "points", "started")
    plain = [dict(zip(names, row, strict=True)) | {"points": one.points} for row, one in zip(rows, known, strict=True)]
    answer({"scans": plain}, table(names, rows) or ["There is no scan yet."], as_json=as_json)
