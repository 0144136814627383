"""The section `container` of the site file: the image that jobs run in."""

import pathlib
from typing import Literal

from pydantic import Field

from beamtide.config.section import Section
from beamtide.config.yaml_file import Document

Folder = Literal["raw", "processed", "shared", "site", "state"]


class Container(Section):
    """The image that jobs run in."""

    runtime: Literal["none", "apptainer", "singularity"] = "none"
    """The container program of the nodes; none: jobs run what is installed there."""
    image: pathlib.Path | None = None
    """The image file or folder, as the nodes see it (`beamtide image build`)."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """The digest that the image file must have; `beamtide image build` prints it. Without it any file of that name is run."""
    stage: pathlib.Path | None = None
    """A folder on each node's own disk or memory that the image is copied to, once for all jobs there."""
    unpack: bool = False
    """Unpack the copy in `stage`: jobs start sooner, and the node needs room for three times the image."""
    umask: str = Field(default="0027", pattern=r"^0[0-7]{3}$")
    """Who may read what a job writes."""
    nodes: dict[Folder, pathlib.Path] = {}
    """Where the nodes have the roots, the folder of the site file and the state folder, if it is somewhere else than here."""


def problems(container: Container, document: Document) -> list[str]:
    """Return what is wrong with this section of a site file."""
    found = []
    if container.runtime != "none" and container.image is None:
        found.append(f"{document.where(('container',))}: runtime {container.runtime} needs an image; see `beamtide image build`")
    if container.stage and not container.digest:
        found.append(f"{document.where(('container', 'stage'))}: a copied image is checked by its digest; add container.digest")
    if container.unpack and not container.stage:
        found.append(f"{document.where(('container', 'unpack'))}: the copy on a node is what is unpacked; add container.stage")
    odd = [name for name, path in container.nodes.items() if not path.is_absolute()]
    found += [f"{document.where(('container', 'nodes', name))}: {container.nodes[name]} must begin with /" for name in odd]
    if any(letter in str(path) for path in (container.image, *container.nodes.values()) for letter in ":,"):
        found.append(f"{document.where(('container',))}: no path may have a colon or a comma, which separate binds")
    return found
