"""Commands for the spool of a service that does not run: spool check|salvage|show. They never change a spool in place."""

import pathlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, complain, table
from beamtide.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

Which = Annotated[str, typer.Argument(metavar="COMPONENT|FILE", help="As in `beamtide topology`, or a file *.sqlite.")]
SHOWN = 20
"""How many damaged items are printed; --json prints all."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    spool = typer.Typer(help="Show or check the spool of a stopped service, or salvage undamaged rows.", no_args_is_help=True)
    spool.command("show")(spool_show)
    spool.command("check")(spool_check)
    spool.command("salvage")(spool_salvage)
    app.add_typer(spool, name="spool", rich_help_panel="Serve")


def spool_show(which: Which, config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Show the tables of a spool."""
    from beamline_side.spool import repair

    path = _file(which, config)
    tables, segments, size = repair.show(path)
    rows = [(one.name, str(one.rows), f"{one.bytes / 1e6:.3f}", str(one.payloads)) for one in tables]
    lines = table(("table", "rows", "MB", "payloads"), rows) or [f"{path} is empty."]
    lines.append(f"{segments} segments with {size / 1e6:.1f} MB")
    answer(
        {"file": str(path), "tables": [asdict(one) for one in tables], "segments": segments, "bytes": size},
        lines,
        as_json=as_json,
    )


def spool_check(which: Which, config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Read the whole spool and list what is damaged; exit code 1 if anything is."""
    from beamline_side.spool import repair

    path = _file(which, config)
    found = repair.check(path, _telling("payloads checked", quiet=as_json))
    lines = [*found[:SHOWN], *([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])]
    answer({"file": str(path), "problems": found}, lines or [f"{path}: nothing is damaged."], as_json=as_json)
    if found:
        raise typer.Exit(1)


def spool_salvage(
    which: Which,
    to: Annotated[
        pathlib.Path | None, typer.Option(help="The new file (default: in a folder `salvaged` beside the old).")
    ] = None,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Write the undamaged rows to a new spool, and say what is lost and how to use it; exit code 1 if anything is lost."""
    from beamline_side.spool import repair

    path = _file(which, config)
    new = to or path.parent / "salvaged" / path.name
    done = repair.salvage(path, new, _telling("rows saved", quiet=as_json))
    lines = [f"{done.rows} rows, {done.payloads} of them with payloads, are in {new}."]
    lines += [f"lost: {one}" for one in done.lost[:SHOWN]]
    lines += [f"and {len(done.lost) - SHOWN} more"] if len(done.lost) > SHOWN else []
    lines.append(f"To use it, move {path.parent}/{path.stem}.* away, then move {new.parent}/{new.stem}.* there.")
    answer({"file": str(path), "to": str(new), **asdict(done)}, lines, as_json=as_json)
    if done.lost:
        raise typer.Exit(1)


def _file(which: str, config: pathlib.Path) -> pathlib.Path:
    from beamtide.config import site

    if which.endswith(".sqlite"):
        return pathlib.Path(which)
    deployment = site.load(config)
    if which not in deployment.components():
        raise BadInput(f"there is no component {which!r}; this site has: {', '.join(deployment.components())}")
    return deployment.site.state / "spool" / f"{which}.sqlite"


def _telling(what: str, *, quiet: bool) -> "Callable[[int], None]":
    return lambda count: None if quiet or not count else complain(f"{count} {what}")
