"""Batch scripts: one template per modality, filled in with everything quoted for the shell.

Theory: values in `{{ }}` are quoted by the renderer and not by the author of a template, so quoting cannot be forgotten; a list
becomes several arguments. An unknown name in a template is an error, never an empty string. Templates lie in `sbatch_templates`,
beside the packages, in a checkout as well as where a wheel was installed; those in a site's own folder (slurm.templates) come
first.
"""

import pathlib
import re
import shlex
from typing import Any

import jinja2

from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from cluster_side.images import enter
from cluster_side.scaling.launchers.base import JobOrder

TEMPLATES = pathlib.Path(__file__).parents[4] / "sbatch_templates"
BASE = "base.sh.j2"
"""The template of modalities that have no template of their own."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _QuotedText(str):
    """Lines of a script, quoted where they were made."""

    __slots__ = ()


def render(order: JobOrder, deployment: Deployment) -> str:
    """Return the script of an order. BadInput if a template is wrong, or a value cannot be in a script."""
    slurm = deployment.site.slurm
    folders = [folder for folder in (slurm.templates, TEMPLATES) if folder is not None]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        finalize=_quoted,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  it is a shell script, not a page: _quoted does it
    )
    environment.filters |= {"lines": _QuotedText, "word": lambda text: _QuotedText(shlex.quote(text))}
    _quoted(order.argv)  # it comes in with `start`, which is not looked at any more
    try:
        return environment.select_template([f"{order.modality}.sh.j2", BASE]).render(_names(order, deployment))
    except jinja2.TemplateError as error:
        raise BadInput(_mistake(error, order)) from error


def _names(order: JobOrder, deployment: Deployment) -> dict[str, Any]:
    return {
        "pipeline": order.pipeline,
        "modality": order.modality,
        "name": order.name,
        "token": order.token,
        "slots": order.slots,
        "tasks": order.tasks,
        "shape": order.shape,
        "env": dict(order.env),
        "argv": order.argv,
        "start": enter.script(deployment, order.argv, order.shape.gpus).rstrip("\n"),
        "mpi": deployment.site.slurm.mpi,
    }


def _quoted(value: object) -> str:
    if isinstance(value, _QuotedText):
        return value
    words = [str(word) for word in value] if isinstance(value, tuple | list) else [str(value)]
    if isinstance(value, jinja2.Undefined):
        return str(value)  # raises, and says which name
    if any(CONTROL.search(word) for word in words):
        raise BadInput(f"{' '.join(words)!r} has a line break or a control character, which a batch script may not have")
    return shlex.join(words)


def _mistake(error: jinja2.TemplateError, order: JobOrder) -> str:
    where = f"template of {order.modality}"
    if isinstance(error, jinja2.TemplateSyntaxError):
        where = f"{error.filename or error.name}:{error.lineno}"
    return f"{where}: {error.message or error}; sbatch_templates/README.md lists the names that a template may use"
