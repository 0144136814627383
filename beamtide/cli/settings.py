"""Commands about settings: put, show, list, check."""

import json
import pathlib
from typing import Annotated, Any

import typer

from beamtide import registry
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, choice, table
from beamtide.config.calibration import with_named
from beamtide.errors import BadInput

TELL = "Tell"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    stored = typer.Typer(help="Store, show and list settings on the metadata server.", no_args_is_help=True)
    stored.command("put")(settings_put)
    stored.command("show")(settings_show)
    stored.command("list")(settings_list)
    stored.command("check")(settings_check)
    app.add_typer(stored, name="settings", rich_help_panel=TELL)


def settings_put(
    pipeline: Annotated[str, typer.Argument(help="A pipeline of the site.")],
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Store a pipeline's settings and calibration files on the metadata server; prints their digest."""
    from beamtide.client.client import Client

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
    from beamtide.client.client import Client

    with Client(config) as client:
        document = client.settings(digest)
    value = {"modality": document.modality, "settings": json.loads(document.values), "calibration": document.calibration}
    value |= {"source": json.loads(document.source)} if document.source else {}
    answer(value, [json.dumps(value, indent=2)], as_json=as_json)


def settings_list(
    modality: Annotated[str, typer.Argument(help="Only of this modality.")] = "",
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """List stored settings, newest first."""
    from beamtide.client.client import Client

    with Client(config) as client:
        found = client.settings_list(modality)
    rows = [(digest, document.modality, document.values[:60]) for digest, document in found]
    plain = [{"digest": digest, "modality": document.modality} for digest, document in found]
    lines = table(("digest", "modality", "settings"), rows) or ["There are no settings yet."]
    answer({"settings": plain}, lines, as_json=as_json)


def settings_check(  # noqa: PLR0913, PLR0917  one argument per option
    modality: Annotated[str, typer.Argument(help="Whose file it is, such as xrf or xrd.")],
    file: Annotated[pathlib.Path, typer.Argument(help="Its calibration file, such as a PyMca configuration or a geometry.")],
    sample: Annotated[
        pathlib.Path | None,
        typer.Option(help="A spectrum (.npy, .spe, result file) or a frame (.tif, .edf, .h5, .npy) to try it on."),
    ] = None,
    picture: Annotated[
        pathlib.Path | None,
        typer.Option(help="Where to write the image of the try-out (.png, .jpg)."),
    ] = None,
    mask: Annotated[pathlib.Path | None, typer.Option(help="The mask that goes with a geometry.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="A setting of the pipeline, such as orientation=3.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a calibration file contains, what of it is ignored and what is wrong; exit code 2 if something is."""
    asked = registry.find("modalities", modality)
    calibration = {asked.explains: file} | ({"mask": mask} if mask else {})
    for path in (*calibration.values(), *([sample] if sample else [])):
        if not path.is_file():
            raise BadInput(f"{path} is not a file")
    calibration = with_named(asked.name, calibration, file.resolve().parent)
    found = asked.explained(_values(setting or []), calibration, sample)
    drawn = None
    if found.picture is not None:
        drawn = picture or pathlib.Path(f"{file.stem}_preview.png")
        _write(drawn, found.picture)
    lines = [f"{name:<12} {text}" for name, text in found.facts.items()]
    lines += [f"ignored      {text}" for text in found.ignored] + [f"WRONG        {text}" for text in found.wrong]
    value = {"facts": dict(found.facts), "ignored": list(found.ignored), "wrong": list(found.wrong)}
    shown = [f"picture      {drawn}"] if drawn else []
    answer(value | {"picture": str(drawn) if drawn else None}, lines + shown, as_json=as_json)
    if found.wrong:
        raise typer.Exit(2)


def _values(words: list[str]) -> dict[str, Any]:
    """Return ["points=500"] as {"points": 500}; what is not JSON is text."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise BadInput(f"--set {word}: write it as NAME=VALUE, for example orientation=3")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _write(path: pathlib.Path, picture: Any) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise BadInput("images need Pillow: pip install 'beamtide[maps]'") from error
    try:
        Image.fromarray(picture).save(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot write the image {path}: {error}; name a .png or .jpg in a folder that may be written") from error
