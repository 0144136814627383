"""Commands for dead letters: dlq list|show|retry|drop|export. The beginning of a task's id is enough to name it."""

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, table
from beamtide.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from beamtide import bundle
    from beamtide.client.client import Client
    from beamtide.messages.dead_letters import DeadLetter

TELL = "Tell"
LONGEST = 90
Which = Annotated[str, typer.Argument(metavar="TASK|SCAN/PIPELINE|SCAN", help="As `dlq list` shows them.")]
One = Annotated[str, typer.Argument(metavar="TASK", help="As `dlq list` shows it; its beginning is enough.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    dead = typer.Typer(help="Look at tasks that were abandoned, retry them, or export them.", no_args_is_help=True)
    dead.command("list")(dead_list)
    dead.command("show")(dead_show)
    dead.command("retry")(dead_retry)
    dead.command("drop")(dead_drop)
    dead.command("export")(dead_export)
    app.add_typer(dead, name="dlq", rich_help_panel=TELL)


def dead_list(
    pipeline: Annotated[str, typer.Option(help="Only of this pipeline.")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """List dead letters, newest first."""
    from beamtide.bundle import plain
    from beamtide.client.client import Client

    with Client(config) as client:
        found = client.dead_letters(pipeline)
    names = ("task", "faults", "losses", "host", "when", "reason")
    rows = [(one.task.id, str(one.faults), str(one.losses), one.host, _when(one), _short(one.reason)) for one in found]
    answer({"letters": [plain(one) for one in found]}, table(names, rows) or ["There are no dead letters."], as_json=as_json)


def dead_show(task: One, config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Show all that is known of a dead letter: reason, traceback, standard error output."""
    from beamtide.bundle import plain
    from beamtide.client.client import Client

    with Client(config) as client:
        letter = client.dead_letter(_only(task, client.dead_letters()))
    one = letter.task
    lines = [
        f"{one.id}: indexes {one.start} to {one.stop - 1} of {one.scan}, {one.pipeline}",
        letter.reason,
        f"{letter.attempts} attempts, {letter.faults} faults, {letter.losses} lost workers; "
        f"last {letter.worker or 'nobody'} on {letter.host or 'an unknown host'}, job {letter.job or '-'}, {_when(letter)}",
        *(f"input     {given.root}: {given.path}, frames {given.first} to {given.last - 1}" for given in one.inputs),
        *(["", letter.trace.rstrip()] if letter.trace else []),
        *(["", "standard error output:", letter.stderr.rstrip()] if letter.stderr else []),
    ]
    answer(plain(letter), lines, as_json=as_json)


def dead_retry(which: Which, config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Retry dead letters. Their results fill the holes, and the result file is written again."""
    from beamtide.client.client import Client

    with Client(config) as client:
        found = matching(which, client.dead_letters())
        client.retry(found)
    answer({"retried": [one.task.id for one in found]}, [f"{_tasks(found)} retried."], as_json=as_json)


def dead_drop(which: Which, config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """Delete dead letters. Their holes stay."""
    from beamtide.client.client import Client

    with Client(config) as client:
        found = matching(which, client.dead_letters())
        client.drop(found)
    answer({"dropped": [one.task.id for one in found]}, [f"{len(found)} dropped; the holes stay."], as_json=as_json)


def dead_export(
    task: One,
    to: Annotated[pathlib.Path, typer.Option("--to", help="A folder, or a file that ends in .zip.")],
    with_inputs: Annotated[bool, typer.Option("--with-inputs", help="Copy the input files, too.")] = False,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Write a bundle that can be rerun anywhere: task, settings, calibration, traceback."""
    from beamtide import bundle
    from beamtide.client.client import Client

    with Client(config) as client:
        made = _bundle(client, _only(task, client.dead_letters()))
    missing = bundle.write(made, to, with_inputs=with_inputs)
    lines = [
        f"{to} is written. Rerun it: beamtide rerun {to}",
        *(f"{name} does not exist, so it was not copied." for name in missing),
    ]
    answer({"bundle": str(to), "task": made.letter.task.id, "missing": missing}, lines, as_json=as_json)


def matching(text: str, letters: "Sequence[DeadLetter]") -> "list[DeadLetter]":
    """Return the letters that `text` names: a task, all of a scan (and pipeline), or the one whose id begins with it."""
    if same := [one for one in letters if one.task.id == text]:
        return same
    if group := [one for one in letters if text in (one.task.scan, f"{one.task.scan}/{one.task.pipeline}")]:
        return group
    found = [one for one in letters if text and one.task.id.startswith(text)]
    if not found:
        raise BadInput(f"there is no dead letter {text!r}; see `beamtide dlq list`")
    if len(found) > 1:
        raise BadInput(f"{len(found)} tasks begin with {text}, such as {found[0].task.id}; write more of it, or SCAN/PIPELINE")
    return found


def _only(text: str, letters: "Sequence[DeadLetter]") -> str:
    found = matching(text, letters)
    if len(found) > 1:
        raise BadInput(f"{text} has {len(found)} dead letters; name one, such as {found[0].task.id}")
    return found[0].task.id


def _bundle(client: "Client", task: str) -> "bundle.Bundle":
    from beamtide import bundle

    letter = client.dead_letter(task)
    one, document = letter.task, client.settings(letter.task.settings)
    datasets = {}
    for need in (need for need in one.needs if need.dataset):
        name = f"{need.pipeline}/{need.dataset}"
        datasets[name] = client.fetch(one.scan, name, one.start, one.stop, need.settings).values
    files = {name: client.file(digest) for name, digest in document.calibration.items()}
    return bundle.Bundle(letter, document, files, client.deployment.site.roots, datasets)


def _when(letter: "DeadLetter") -> str:
    return clock.iso(letter.at)[:19] if letter.at else "—"


def _short(reason: str) -> str:
    return reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"


def _tasks(found: "Sequence[DeadLetter]") -> str:
    return f"{len(found)} tasks are" if len(found) > 1 else f"{found[0].task.id} is"
