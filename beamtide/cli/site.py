"""Commands about a site before it runs: check, schema, formats."""

import json
import pathlib
from typing import Annotated, Any

import typer

from beamtide.cli.screen import DEFAULT_SITE, Json, answer, choice, say

SETUP = "Set up"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=SETUP)(check)
    app.command(rich_help_panel=SETUP)(schema)
    app.command(rich_help_panel=SETUP)(formats)


def check(file: Annotated[pathlib.Path, typer.Argument(help="The site file.")] = DEFAULT_SITE, as_json: Json = False) -> None:
    """Say what is wrong with a site, before anything starts."""
    from beamtide.config import site

    found = site.check(file)
    count = f"{len(found)} problem{'' if len(found) == 1 else 's'}, nothing started."
    lines = [*found, count] if found else [f"{file}: nothing is wrong."]
    answer({"file": str(file), "problems": found}, lines, as_json=as_json)
    if found:
        raise typer.Exit(2)


def schema(
    what: Annotated[str, typer.Argument(help="site, pipeline, or the name of a modality or launcher.")] = "site",
    as_json: Annotated[bool, typer.Option("--json", help="Without line breaks.")] = False,
) -> None:
    """Print the JSON Schema of a file, or of the settings of a modality or launcher."""
    from beamtide import registry
    from beamtide.config.models import PipelineConfig, SiteConfig

    own: dict[str, Any] = {"site": SiteConfig, "pipeline": PipelineConfig}
    groups = [group for group, needed in registry.GROUPS.items() if "settings" in needed]
    plugins = {name: group for group in groups for name in registry.names(group)}
    choice(what, [*own, *plugins], "schema")
    model = own[what] if what in own else registry.find(plugins[what], what).settings
    say(json.dumps(model.model_json_schema(), indent=None if as_json else 2))


def formats(as_json: Json = False) -> None:
    """List what is installed: formats, modalities, launchers, writers and components, those of other distributions too.

    What does not load is said. Exit code 2: something does not load.
    """
    from beamtide import registry

    found = {group: registry.names(group) for group in registry.GROUPS}
    problems = registry.problems()
    lines = [f"{group:<12}{', '.join(names)}" for group, names in found.items()]
    answer({**found, "problems": problems}, [*lines, *problems], as_json=as_json)
    if problems:
        raise typer.Exit(2)
