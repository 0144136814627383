"""Commands about results: get."""

import pathlib
import shutil
from dataclasses import dataclass
from typing import Annotated

import typer

from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, choice
from beamtide.errors import BadInput

RESULTS = "Results"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=RESULTS)(get)


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
    from beamtide.config import site
    from beamtide.results import reading

    folder = processed or site.load(config).site.roots.processed
    if not scan:
        scans = reading.list_results(folder)
        answer({"scans": scans}, scans or [f"There are no results below {folder}."], as_json=as_json)
        return
    found = reading.open(scan, folder)
    chosen = [one for one in found if not name or one == name or one.startswith(name + "/")]
    if not chosen:
        raise BadInput(f"{scan} has no {name!r}; there are: {', '.join(found)}")
    files = sorted({found.files[one.partition("/")[0]] for one in chosen})
    problems = [problem for file in files for problem in reading.verify(file)] if verify else []
    written = _deliver(_Export(scan, name, chosen, kind, folder), to) if to else []
    lines = [str(path) for path in written] or ([] if verify else chosen)
    lines += problems or ([f"{len(files)} files are as they were written."] if verify else [])
    answer({"scan": scan, "datasets": chosen, "files": files, "written": written, "problems": problems}, lines, as_json=as_json)
    if problems:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Export:
    """What to export, in which format, from which folder of results."""

    scan: str
    name: str
    chosen: list[str]
    kind: str
    processed: pathlib.Path


def _deliver(wanted: _Export, to: pathlib.Path) -> list[pathlib.Path]:
    """Copy the files of a scan, or export the chosen datasets one by one; existing files are never overwritten."""
    from beamtide.results import reading

    if wanted.kind:
        choice(wanted.kind, ("npy", "csv", "tif"), "export format")
    elif not wanted.name:
        return [reading.copy_to(wanted.scan, to, wanted.processed)]
    elif wanted.name in wanted.chosen:
        raise BadInput(f"{wanted.name} is one dataset of a file; add --as npy, csv or tif, or name only the pipeline")
    found = reading.open(wanted.scan, wanted.processed)
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not wanted.kind:
            source = found.files[wanted.name.partition("/")[0]]
            return [pathlib.Path(shutil.copy2(source, _free(to / source.name)))]
    except OSError as error:
        raise BadInput(f"cannot write to {to}: {error.strerror}; choose another folder with --to") from error
    targets = {one: _free(to / f"{wanted.scan}_{one.replace('/', '_')}.{wanted.kind}") for one in wanted.chosen}
    return [reading.export(found[one], path) for one, path in targets.items()]


def _free(path: pathlib.Path) -> pathlib.Path:
    if path.exists():
        raise BadInput(f"{path} exists already; delete it first or choose another folder with --to")
    return path
