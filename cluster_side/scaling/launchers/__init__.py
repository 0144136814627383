"""Launchers of jobs: submit, look, cancel. `launcher_of` finds the one that a site file names."""

from beamtide import registry
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import Launcher


def launcher_of(deployment: Deployment) -> Launcher:
    """Return the launcher of a site. BadInput if it is not installed, or cannot work with this site file."""
    try:
        kind = registry.find("launchers", deployment.site.launcher)
    except BadInput as error:
        raise BadInput(f"{deployment.file.name}: launcher: {error}") from error
    launcher: Launcher = kind(deployment)
    return launcher
