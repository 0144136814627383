"""The section `container` of the site file: the image that jobs run in."""

import pathlib
from typing import Literal

from pydantic import Field

from beamtide.config.section import Section

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
    """Paths on the nodes of the roots, the folder of the site file and the state folder, where they differ from those here."""
