"""Commands for images: `beamtide image build|show|check`."""

import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from beamtide.cli.screen import Json, answer, say
from beamtide.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

Image = Annotated[pathlib.Path, typer.Argument(metavar="IMAGE", help="An image file (.sif) or folder.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    image = typer.Typer(help="Build, look at and check the images that workers run in.", no_args_is_help=True)
    image.command("build")(build)
    image.command("show")(show)
    image.command("check")(check)
    app.add_typer(image, name="image", rich_help_panel="Set up")


def build(  # noqa: PLR0913, PLR0917  one argument per option
    kind: Annotated[str, typer.Argument(metavar="KIND", help="worker-cpu, worker-gpu, worker-mpi or beamline.")],
    image: Image,
    base: Annotated[
        str, typer.Option("--from", help="A local root folder or image, or docker:NAME, instead of KIND's own.")
    ] = "",
    sandbox: Annotated[bool, typer.Option(help="A folder instead of a file, for machines that cannot mount one.")] = False,
    wheels: Annotated[pathlib.Path | None, typer.Option(help="Keep wheels here between builds.")] = None,
    plugins: Annotated[
        list[pathlib.Path] | None, typer.Option("--with", help="Another distribution that goes in: its folder or wheel.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an image from its definition and lock file; it appears when it is whole."""
    from cluster_side.images import build as builder

    order = builder.BuildOrder(kind, image, base, sandbox, wheels, tuple(plugins or ()))
    built = builder.build(order, (lambda _: None) if as_json else say)
    lines = [
        f"{built.image}: {built.megabytes:.0f} MB, versions {built.lock}",
        *(
            [f"pin it in the site file: container: {{image: {built.image.resolve()}, digest: {built.digest}}}"]
            if built.digest
            else []
        ),
    ]
    plain = {"image": str(built.image), "megabytes": round(built.megabytes, 1), "digest": built.digest, "lock": built.lock}
    answer(plain, lines, as_json=as_json)


def show(image: Image, as_json: Json = False) -> None:
    """Show what an image says of itself, and how large it is."""
    from cluster_side.images import build as builder
    from cluster_side.images import runtime

    labels = runtime.labels(runtime.detect(), image)
    value = {
        "image": str(image),
        "megabytes": round(builder.size(image) / 1e6, 1),
        "digest": builder.file_digest(image),
        "labels": labels,
    }
    shown = [f"{name:<32} {text}" for name, text in sorted(labels.items()) if name.startswith("org.beamtide.")]
    answer(value, [f"{image}: {value['megabytes']} MB, {value['digest'] or 'a folder'}", *shown], as_json=as_json)


def check(
    image: Image,
    mpi: Annotated[bool, typer.Option("--mpi", help="Also whether its MPI fits the MPI and Slurm of this machine.")] = False,
    as_json: Json = False,
) -> None:
    """Check that an image runs here, holds what its lock says, and fits this Beamtide."""
    from cluster_side.images import checks, runtime

    program = runtime.detect()
    found: Mapping[str, str] = checks.image(program, image) | (checks.mpi(program, image) if mpi else {})
    wrong = {name: text for name, text in found.items() if text}
    lines = [f"{'no' if text else 'ok':<4} {name}{': ' if text else ''}{text}" for name, text in found.items()]
    answer({"image": str(image), "runtime": program.version, "problems": wrong}, lines, as_json=as_json)
    if wrong:
        raise BadInput(f"{image}: {next(iter(wrong.values()))}")
