"""Launchers of jobs: submit, look, cancel. `launcher_of` finds the one that a site file names."""

from importlib.metadata import entry_points
from typing import cast

from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import Launcher

GROUP = "beamtide.launchers"
"""Entry points: name -> function from a deployment to its launcher; loaded when it is wanted."""


def launcher_of(deployment: Deployment) -> Launcher:
    """Return the launcher of a site. BadInput if it is not installed, or cannot work with this site file."""
    name = deployment.site.launcher
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise BadInput(
            f"launcher {name!r} is not installed; there are: {', '.join(sorted(found)) or 'none'} (site file, launcher)"
        )
    return cast(Launcher, found[name].load()(deployment))
