"""Commands that tell the services something: submit, cancel, scan start|stop|list, settings put|show|list."""

import json
import pathlib
from typing import Annotated, Any

import typer

from beamtide.command_check import settings_check
from beamtide.errors import BadInput
from beamtide.screen import DEFAULT_SITE, Json, SiteFile, answer, choice, table

TELL, SETUP = "Tell", "Set up"
Shape = Annotated[str, typer.Option("--shape", help="Points of the scan, slow x fast: 41x41, or 200 for a line.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    scans = typer.Typer(help="Start, stop and list scans.", no_args_is_help=True)
    scans.command("start")(scan_start)
    scans.command("stop")(scan_stop)
    scans.command("list")(scan_list)
    stored = typer.Typer(help="Keep, show and list settings on the metadata server.", no_args_is_help=True)
    stored.command("put")(settings_put)
    stored.command("show")(settings_show)
    stored.command("list")(settings_list)
    stored.command("check")(settings_check)
    app.add_typer(scans, name="scan", rich_help_panel=TELL)
    app.command(rich_help_panel=TELL)(submit)
    app.command(rich_help_panel=TELL)(cancel)
    app.add_typer(stored, name="settings", rich_help_panel=TELL)


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
    """Hand tasks to the distributor; sending the same ones again changes nothing."""
    from beamtide.client import Client

    tasks = read_tasks(file)
    with Client(config) as client:
        client.submit(tasks)
    answer({"submitted": [task.id for task in tasks]}, [f"{len(tasks)} tasks are on the distributor's disk."], as_json=as_json)


def read_tasks(file: pathlib.Path) -> list[Any]:
    """Return the tasks of a JSON file. BadInput says which entry is wrong, and how."""
    import msgspec

    from beamtide.messages.tasks import InputFile, Need, Task

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
                "inputs": [InputFile(**each) for each in one["inputs"]],
                "needs": [Need(**each) for each in one.get("needs", [])],
            }
            values = {"id": task_id(one), **one, **inner}
            found.append(msgspec.convert(msgspec.to_builtins(Task(**values)), Task))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise BadInput(f"{file}, task {position}: {error}; see docs/tutorial.md for an example") from error
    return found


def task_id(task: dict[str, Any]) -> str:
    """Return the id that stands for what a task is."""
    start, stop = int(task["start"]), int(task["stop"])
    return f"{task['scan']}/{task['pipeline']}/{task['settings'][:8]}/{start:06d}-{stop:06d}"


def cancel(
    scan: Annotated[str, typer.Argument(help="The scan.")],
    pipeline: Annotated[str, typer.Option(help="Only this pipeline.")] = "",
    reason: Annotated[str, typer.Option(help="Stands in the results.")] = "cancelled",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """End all open tasks of a scan; what is computed already stays."""
    from beamtide.client import Client

    with Client(config) as client:
        if pipeline:
            choice(pipeline, list(client.deployment.pipelines), "pipeline")
        client.cancel(scan, pipeline, reason)
    answer({"cancelled": scan, "pipeline": pipeline}, [f"{scan}: open tasks end as abandoned ({reason})."], as_json=as_json)


def scan_start(
    scan: Annotated[str, typer.Argument(help="The name of the scan, as in the names of its files.")],
    shape: Shape,
    axes: Annotated[str, typer.Option(help="Motors, slowest first: scanv,scanu.")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Say that a scan runs now."""
    from beamtide.client import Client
    from beamtide.layout import checked
    from beamtide.messages.base import ScanId
    from beamtide.messages.metadata import Scan

    started = Scan(id=ScanId(checked(scan)), shape=parse_shape(shape), axes=tuple(axes.split(",")) if axes else ())
    with Client(config) as client:
        client.scan_started(started)
    answer({"started": scan, "shape": started.shape}, [f"{scan} runs. Follow it: beamtide watch {scan}"], as_json=as_json)


def scan_stop(
    scan: Annotated[str, typer.Argument(help="The scan.")],
    points: Annotated[int, typer.Option(help="How many points were measured (default: as planned).")] = -1,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Say that no further frames of a scan will come; what was measured is still processed."""
    from beamtide.client import Client

    with Client(config) as client:
        client.scan_ended(scan, points)
    answer({"ended": scan, "points": points}, [f"{scan} has ended; its results will be complete soon."], as_json=as_json)


def scan_list(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """List the scans that the metadata server knows."""
    from beamtide import clock
    from beamtide.client import Client

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


def settings_put(
    pipeline: Annotated[str, typer.Argument(help="A pipeline of the site.")],
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Keep a pipeline's settings and calibration files; prints their digest."""
    from beamtide.client import Client

    with Client(config) as client:
        choice(pipeline, list(client.deployment.pipelines), "pipeline")
        digest = client.put_settings(client.deployment.pipelines[pipeline])
    answer({"pipeline": pipeline, "digest": digest}, [digest], as_json=as_json)


def settings_show(
    digest: Annotated[str, typer.Argument(help="64 hexadecimal digits; see `beamtide settings list`.")],
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Print the settings that a digest stands for."""
    from beamtide.client import Client

    with Client(config) as client:
        document = client.settings(digest)
    value = {"modality": document.modality, "settings": json.loads(document.values), "calibration": document.calibration}
    answer(value, [json.dumps(value, indent=2)], as_json=as_json)


def settings_list(
    modality: Annotated[str, typer.Argument(help="Only of this modality.")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """List stored settings, newest first."""
    from beamtide.client import Client

    with Client(config) as client:
        found = client.settings_list(modality)
    rows = [(digest, document.modality, document.values[:60]) for digest, document in found]
    plain = [{"digest": digest, "modality": document.modality} for digest, document in found]
    lines = table(("digest", "modality", "settings"), rows) or ["There are no settings yet."]
    answer({"settings": plain}, lines, as_json=as_json)
