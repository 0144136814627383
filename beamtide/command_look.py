"""Commands that look and change nothing: check, schema, formats, topology, watch, get."""

import json
import pathlib
import shutil
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from beamtide import clock
from beamtide.errors import BadInput, NoAnswer
from beamtide.screen import DEFAULT_SITE, Json, SiteFile, answer, choice, duration, lines_of, progress, say, table

LOOK, RESULTS, SETUP = "Look", "Results", "Set up"
REFRESH = 0.5


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=SETUP)(check)
    app.command(rich_help_panel=SETUP)(schema)
    app.command(rich_help_panel=SETUP)(formats)
    app.command(rich_help_panel=LOOK)(topology)
    app.command(rich_help_panel=LOOK)(watch)
    app.command(rich_help_panel=RESULTS)(get)


def check(file: Annotated[pathlib.Path, typer.Argument(help="The site file.")] = DEFAULT_SITE, as_json: Json = False) -> None:
    """Say what is wrong with a site, before anything starts."""
    from beamtide import site

    found = site.check(file)
    count = f"{len(found)} problem{'' if len(found) == 1 else 's'}, nothing started."
    lines = [*found, count] if found else [f"{file}: nothing is wrong."]
    answer({"file": str(file), "problems": found}, lines, as_json=as_json)
    if found:
        raise typer.Exit(2)


def schema(
    what: Annotated[str, typer.Argument(help="site, pipeline, or the name of a modality.")] = "site",
    as_json: Annotated[bool, typer.Option("--json", help="Without line breaks.")] = False,
) -> None:
    """Print the JSON Schema of a file, or of a modality's settings."""
    from beamtide import registry
    from beamtide.config import PipelineConfig, SiteConfig

    own: dict[str, Any] = {"site": SiteConfig, "pipeline": PipelineConfig}
    modalities = registry.names("modalities")
    choice(what, [*own, *modalities], "schema")
    model = own[what] if what in own else registry.find("modalities", what).settings
    say(json.dumps(model.model_json_schema(), indent=None if as_json else 2))


def formats(as_json: Json = False) -> None:
    """List the file formats and modalities that are installed."""
    from beamtide import registry

    found = {"formats": registry.names("formats"), "modalities": registry.names("modalities")}
    answer(found, [f"{group:<12}{', '.join(names)}" for group, names in found.items()], as_json=as_json)


def topology(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Show every component: where it is, how it is, and why it waits."""
    import msgspec

    from beamtide.client import Client
    from beamtide.watching import relaxed

    with Client(config) as client:
        reports = client.topology()
    rows = [
        (one.card.name, one.state, f"{one.card.host}:{one.card.pid}", duration(one.age), _numbers(one.progress), one.why)
        for one in reports
    ]
    lines = table(("component", "state", "process", "heard", "progress", "why"), rows) or ["No component is registered yet."]
    lines += [f"{name}: {note}" for name, note in relaxed(reports).items()]
    plain = [{name: getattr(one, name) for name in ("state", "progress", "why", "age")} for one in reports]
    cards = [
        {name: getattr(one.card, name) for name in ("name", "kind", "address", "upstream", "host", "pid", "version")}
        for one in reports
    ]
    joined = [card | state for card, state in zip(cards, plain, strict=True)]
    answer({"components": msgspec.to_builtins(joined)}, lines, as_json=as_json)


def watch(
    scan: Annotated[str, typer.Argument(help="The scan (default: the newest).")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Follow a scan until its tasks are done. With --json: how it is now."""
    from beamtide.client import Client
    from beamtide.watching import snapshot

    with Client(config) as client:
        known = client.scans(scan)
        if not known:
            raise BadInput(f"there is no scan {scan!r}; see `beamtide scan list`" if scan else "there is no scan yet")
        name = scan or max(known, key=lambda state: state.version).scan.id
        if as_json:
            shot = snapshot(client, name)
            answer(shot.as_json(), lines_of(shot), as_json=True)
            return
        with progress(quiet=False) as show:
            while True:
                try:
                    shot = snapshot(client, name)
                    show(shot)
                    over = client.scans(name)[0].phase == "ended"
                except NoAnswer:
                    over = False
                else:
                    if over and (not shot.points or all(row.finished for row in shot.pipelines.values())):
                        return
                clock.pause(REFRESH)


def get(  # noqa: PLR0913, PLR0917 - the options of a command
    scan: Annotated[str, typer.Argument(help="The scan; without it, the scans that have results are listed.")] = "",
    name: Annotated[str, typer.Argument(metavar="[PIPELINE[/DATASET]]", help="Only this.")] = "",
    to: Annotated[pathlib.Path | None, typer.Option("--to", help="Copy into this folder; without it, list.")] = None,
    kind: Annotated[str, typer.Option("--as", help="npy, csv or tif, instead of a copy of the HDF5 files.")] = "",
    verify: Annotated[bool, typer.Option("--verify", help="Compare every array with its checksum.")] = False,
    processed: Annotated[pathlib.Path | None, typer.Option(help="The folder of results (default: the site's).")] = None,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """List results, copy them, export or verify them; needs no running service."""
    from beamtide import results, site

    folder = processed or site.load(config).site.roots.processed
    if not scan:
        scans = results.list_results(folder)
        answer({"scans": scans}, scans or [f"There are no results below {folder}."], as_json=as_json)
        return
    found = results.open(scan, folder)
    chosen = [one for one in found if not name or one == name or one.startswith(name + "/")]
    if not chosen:
        raise BadInput(f"{scan} has no {name!r}; there are: {', '.join(found)}")
    files = sorted({found.files[one.partition("/")[0]] for one in chosen})
    problems = [problem for file in files for problem in results.verify(file)] if verify else []
    written = _deliver(_Order(scan, name, chosen, kind, folder), to) if to else []
    lines = [str(path) for path in written] or ([] if verify else chosen)
    lines += problems or ([f"{len(files)} files are what was written."] if verify else [])
    answer({"scan": scan, "datasets": chosen, "files": files, "written": written, "problems": problems}, lines, as_json=as_json)
    if problems:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Order:
    """What somebody wants to have, from which folder of results."""

    scan: str
    name: str
    chosen: list[str]
    kind: str
    processed: pathlib.Path


def _deliver(order: _Order, to: pathlib.Path) -> list[pathlib.Path]:
    """Copy the files of a scan, or export the chosen datasets one by one; never over what is there."""
    from beamtide import results

    if order.kind:
        choice(order.kind, ("npy", "csv", "tif"), "export format")
    elif not order.name:
        return [results.copy_to(order.scan, to, order.processed)]
    elif order.name in order.chosen:
        raise BadInput(f"{order.name} is one dataset of a file; add --as npy, csv or tif, or name only the pipeline")
    found = results.open(order.scan, order.processed)
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not order.kind:
            source = found.files[order.name.partition("/")[0]]
            return [pathlib.Path(shutil.copy2(source, _free(to / source.name)))]
    except OSError as error:
        raise BadInput(f"cannot write to {to}: {error.strerror}; choose another folder with --to") from error
    targets = {one: _free(to / f"{order.scan}_{one.replace('/', '_')}.{order.kind}") for one in order.chosen}
    return [results.export(found[one], path) for one, path in targets.items()]


def _free(path: pathlib.Path) -> pathlib.Path:
    if path.exists():
        raise BadInput(f"{path} exists already; delete it first or choose another folder with --to")
    return path


def _numbers(progress_of: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in progress_of.items())
