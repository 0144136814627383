"""The command `beamtide`: composes the commands of both sides by entry point, and turns errors into sentences and exit codes.

Exit codes: 0 done, 1 a service did not answer or a file is damaged, 2 bad input, 75 a broken rule or disk,
130 interrupted.
"""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import typer.core

from beamtide import registry
from beamtide.cli import dead_letters, explain, keys, lavue, results, scans, settings, site, status
from beamtide.cli.screen import complain, say
from beamtide.errors import BadInput, BeamtideError, Broken
from beamtide.version import __version__

ABOUT = """Beamtide processes X-ray micro/nano-probe data while it is measured.

Start with `beamtide demo`. Commands read site.yaml in this folder, or what -c or BEAMTIDE_SITE names.
"""


@dataclass(slots=True)
class _Wishes:
    """Options that stand before the command."""

    traceback: bool = False


class _Interrupted(Exception):
    """Ctrl-C, carried past click, which would say only "Aborted."."""


class _CommandGroup(typer.core.TyperGroup):
    """All commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted from interrupt


def build(wishes: _Wishes | None = None) -> typer.Typer:
    """Return the application with all commands that are installed."""
    kept = wishes or _Wishes()
    app = typer.Typer(
        cls=_CommandGroup,
        help=ABOUT,
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        debug: Annotated[bool, typer.Option("--debug", "-v", help="Show the traceback of an error.")] = False,
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    ) -> None:
        kept.traceback = debug

    for point in sorted(registry.points("commands"), key=lambda point: point.name):
        try:
            add_to = point.load()
        except ModuleNotFoundError as error:
            if not point.module.startswith(error.name or " "):
                raise
            continue  # only one of the two sides is installed here
        add_to(app)
    for commands in (site, status, results, lavue, explain, scans, settings, dead_letters, keys):
        commands.add_to(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    wishes = _Wishes()
    try:
        build(wishes)(list(arguments))
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except (_Interrupted, KeyboardInterrupt):
        complain("\nInterrupted. Finished work is kept; the same command continues from there.")
        return 130
    except BeamtideError as error:
        if wishes.traceback:
            traceback.print_exception(error)
        complain(str(error))
        return 2 if isinstance(error, BadInput) else 75 if isinstance(error, Broken) else 1
    except BrokenPipeError:  # `beamtide … | head`: the reader has what it wanted
        return 0
    except Exception as error:
        if wishes.traceback:
            raise
        complain(f"Internal error: {type(error).__name__}: {error}; `beamtide --debug …` shows where")
        return 75
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        say(f"beamtide {__version__}")
        raise typer.Exit
