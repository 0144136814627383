"""Commands of the beamline side: serve a component or all of them, process one scan here, show the demo."""

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from beamline_side import commands_spool
from beamtide.cli.screen import DEFAULT_SITE, Json, JsonLog, SiteFile, answer, duration, log_lines, progress, remarks_of, say
from beamtide.errors import BadInput
from beamtide.point_states import STATES, said

if TYPE_CHECKING:
    from beamline_side.hosts.one_scan import ScanOutcome
    from beamtide.config.models import Deployment

START, SERVE, TELL = "Start here", "Serve", "Tell"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=START)(demo)
    app.command(rich_help_panel=START)(run)
    app.command(rich_help_panel=TELL)(reprocess)
    app.command(rich_help_panel=SERVE)(serve)
    commands_spool.add_to(app)


def serve(
    component: Annotated[str, typer.Argument(help="topology, buffer.xrf, … or all.")],
    config: SiteFile = DEFAULT_SITE,
    as_json: JsonLog = False,
) -> None:
    """Run one component, or all of them, until Ctrl-C or SIGTERM."""
    from beamtide.config import site

    log_lines(as_json=as_json)

    deployment = site.load(config)
    if component == "all":
        _serve_all(deployment)
    else:
        from beamline_side.hosts import process

        process.serve(deployment, component)


def demo(
    folder: Annotated[pathlib.Path, typer.Option(help="Folder of the demo; an older one is removed.")] = pathlib.Path("demo"),
    shape: Annotated[str, typer.Option(help="Points of the simulated scan, slow x fast.")] = "41x41",
    as_json: Json = False,
) -> None:
    """Simulate a scan and process it while it is measured: files, tasks, workers, maps."""
    from beamline_side.hosts import demo
    from beamtide.cli.scans import parse_shape
    from beamtide.config import site

    points = parse_shape(shape)
    if len(points) != 2:
        raise BadInput(f"--shape {shape}: the demo is a map; write slow x fast, for example 41x41")
    if not as_json:
        say(f"Beamtide demo · scan_00001 · {points[0]} × {points[1]} points · simulated P06 layout in {folder / 'raw'}")
    with progress(quiet=as_json) as show:
        outcome = demo.demo(folder.resolve(), (points[0], points[1]), show)
    deployment = site.load(folder / "site" / "site.yaml")
    ratios = demo.recovered_and_true(deployment, outcome.scan)
    words = "   ".join(f"{element} {ratio:.3f} ±{max(spread, 0.001):.3f}" for element, ratio, spread in ratios)
    value = _plain(outcome) | {"recovered": {element: {"ratio": ratio, "sigma": spread} for element, ratio, spread in ratios}}
    lines = [*_summary(outcome), f" recovered / true   {words}", *_where(outcome, folder / "processed")]
    answer(value, lines, as_json=as_json)


def run(  # noqa: PLR0913, PLR0917 - the options of a command
    scan: Annotated[str, typer.Argument(help="The name of the scan, as in the names of its files; scan_1+scan_2: both as one.")],
    config: SiteFile = DEFAULT_SITE,
    shape: Annotated[str, typer.Option(help="slow x fast, for example 11x101 (default: as the files say).")] = "",
    snake: Annotated[bool, typer.Option("--snake", help="Every second line runs backwards (seen in positions, too).")] = False,
    pipelines: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    raw: Annotated[pathlib.Path | None, typer.Option(help="Instead of roots.raw.")] = None,
    processed: Annotated[pathlib.Path | None, typer.Option(help="Instead of roots.processed.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="The most jobs at once, instead of scaling.caps.jobs.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; earlier results stay beside the new ones.")] = False,
    as_json: Json = False,
) -> None:
    """Process one scan, whose files exist already, on this machine.

    What was done before is kept; holes are looked at once more, and filled where files have come.
    """
    from beamline_side.hosts import one_scan
    from beamtide.cli.scans import parse_shape
    from beamtide.config import site
    from beamtide.messages.base import ScanId
    from beamtide.messages.metadata import Scan
    from beamtide.results.layout import checked

    deployment = site.load(config)
    if raw or processed or workers or pipelines:
        wanted = tuple(name.strip() for name in pipelines.split(",") if name.strip())
        deployment = site.derived(deployment, site.Changes(raw=raw, processed=processed, jobs=workers, pipelines=wanted))
    points = parse_shape(shape) if shape else one_scan.shape_of(deployment, checked(scan))
    with progress(quiet=as_json) as show:
        outcome = one_scan.run_scan(deployment, Scan(id=ScanId(checked(scan)), shape=points, snake=snake), show, fresh=fresh)
    answer(_plain(outcome), [*_summary(outcome), *_where(outcome, deployment.site.roots.processed)], as_json=as_json)
    if outcome.unwritten:
        raise typer.Exit(2)


def reprocess(
    scan: Annotated[str, typer.Argument(help="The scan.")],
    pipelines: Annotated[list[str] | None, typer.Option("--pipeline", help="Only this, and those that take its results.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; earlier results stay beside the new ones.")] = False,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Have running services process a scan with present settings, and fill holes for which files have come.

    Without services, `beamtide run` does the same.
    """
    from beamline_side.hosts import reprocess as host
    from beamtide.client.client import Client

    with Client(config) as client:
        made = host.reprocess(client, scan, pipelines or (), fresh=fresh)
    lines = [f"{name}: {count} task{'s' * (count != 1)} submitted." for name, count in made.tasks.items()]
    filled = sum(one.task.stop - one.task.start for one in made.filling)
    lines += made.remarks
    lines += [f"{filled} indexes without a result are tried, since their files are there now."] if filled else []
    lines.append(f"What was known already is not computed twice. Follow it: beamtide watch {scan}")
    answer(
        {"scan": scan, "fresh": fresh, "tasks": made.tasks, "filling": filled, "remarks": list(made.remarks)},
        lines,
        as_json=as_json,
    )


def _serve_all(deployment: "Deployment") -> None:
    from beamline_side.hosts.all_in_one import Host
    from beamtide.config import added, site
    from beamtide.pump import stop_on_signals

    if problems := [*site.launcher_problems(deployment), *added.problems(deployment)]:
        raise BadInput("\n".join(problems))
    stopped: list[bool] = []
    with Host(deployment) as host:
        stop_on_signals(lambda: stopped.append(True))
        say(f"All {len(host.alive())} components run. Show them: beamtide topology -c {deployment.file}. Ctrl-C stops them.")
        host.serve(lambda: bool(stopped))


def _plain(outcome: "ScanOutcome") -> dict[str, object]:
    return {
        "scan": outcome.scan,
        "seconds": round(outcome.seconds, 3),
        "last": outcome.last.as_json(),
        "files": [str(file) for file in outcome.files],
        "unwritten": list(outcome.unwritten),
        "holes": list(outcome.holes),
    }


def _summary(outcome: "ScanOutcome") -> list[str]:
    rows = outcome.last.pipelines.values()
    total, doubled, retried = (sum(getattr(row, name) for row in rows) for name in ("total", "doubled", "retried"))
    counts = {state: sum(getattr(row, state) for row in rows) for state in STATES}
    states = ", ".join(f"{count} {said(state)}" for state, count in counts.items() if count or state == "done")
    more = f"; {doubled} doubled" + (f", {retried} retries" if retried else "")
    return [
        *remarks_of(outcome.last),
        *outcome.unwritten,
        *outcome.holes,
        f"Finished in {duration(outcome.seconds)}. {total} tasks: {states}{more}.",
    ]


def _where(outcome: "ScanOutcome", processed: pathlib.Path) -> list[str]:
    """Return where the results are, as commands to paste."""
    finished = [_short(file) for file in outcome.files if file.suffix == ".h5"]
    lines = [f" results    silx view {file}" for file in finished]
    lines += [f" a picture  xdg-open {_short(file)}" for file in outcome.files if file.suffix == ".jpg"][:1]
    return [*lines, f" a copy     beamtide get {outcome.scan} --processed {_short(processed)} --to here"]


def _short(path: pathlib.Path) -> pathlib.Path:
    """Return a path as typed from the present folder."""
    here = pathlib.Path.cwd()
    full = path.resolve()
    return full.relative_to(here) if full.is_relative_to(here) else full
