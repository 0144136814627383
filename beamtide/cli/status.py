"""Commands that show the present state: topology, watch."""

from typing import Annotated

import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, duration, lines_of, progress, table
from beamtide.errors import BadInput, NoAnswer

LOOK = "Look"
REFRESH = 0.5


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=LOOK)(topology)
    app.command(rich_help_panel=LOOK)(watch)


def topology(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Show every component: its address, its state, and why it waits."""
    import msgspec

    from beamtide.client.client import Client
    from beamtide.client.snapshot import relaxed

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
    """Follow a scan until all its tasks have a verdict. With --json: its state now."""
    from beamtide.client.client import Client
    from beamtide.client.snapshot import newest_scan, snapshot

    with Client(config) as client:
        if not (name := newest_scan(client, scan)):
            raise BadInput("there is no scan yet")
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


def _numbers(progress_of: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in progress_of.items())
