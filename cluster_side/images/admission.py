"""Checks, before anything is submitted, whether jobs can run in the image that a site file names."""

import pathlib
import shutil

from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from cluster_side.images import checks, runtime
from cluster_side.images.build import file_digest


def problems(deployment: Deployment, *, on_nodes: bool) -> tuple[str, ...]:
    """Return what keeps jobs from this image, one sentence each; what only the nodes can see is left to them.

    `on_nodes`: jobs run on other machines than this one.
    """
    container = deployment.site.container
    if container.runtime == "none" or container.image is None:
        return ()
    image = container.image
    if not image.exists():
        return (f"container.image: there is no {image}; build it with `beamtide image build`, or correct the path",)
    if container.digest and (there := file_digest(image)) != container.digest:
        return (
            f"container.digest: {image} is {there or 'a folder'}, the site file pins {container.digest}; "
            "put the pinned image there, or pin this one",
        )
    if on_nodes and not shutil.which(container.runtime):
        return ()  # only the nodes have it
    return _versions(image, container.runtime)


def _versions(image: pathlib.Path, program: str) -> tuple[str, ...]:
    """Compare the versions inside with our lock file, where the container program is installed here too."""
    try:
        reason = checks.stale(runtime.labels(runtime.detect(program), image))
    except BadInput as error:
        return (f"container.image: {error}",)
    return (f"container.image: {image}: {reason}",) if reason else ()
