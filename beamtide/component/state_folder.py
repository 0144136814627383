"""The state folders of a deployment (spools, logs, cache, sockets), open to this user only. The first component makes them."""

import errno
import os
import pathlib
import stat

from beamtide.config.models import Deployment
from beamtide.errors import BadInput, Broken


def prepare(deployment: Deployment) -> None:
    """Make the state folders, open to this user only; BadInput if that is not possible, Broken if the disk is full."""
    for folder in (deployment.sockets(), *(deployment.site.state / name for name in ("spool", "logs", "cache"))):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # a full disk is no mistake in the site file: exit code 75, so we are restarted
                raise Broken(f"cannot write to the state folder {deployment.site.state}: {error.strerror}") from error
            raise BadInput(f"cannot write to the state folder {deployment.site.state}: {error.strerror}") from error
    _for_us_alone(deployment.sockets())


def _for_us_alone(sockets: pathlib.Path) -> None:
    """Refuse a socket folder that another user made or may enter: everybody who reaches a socket may use it."""
    info = sockets.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
        raise BadInput(f"{sockets} must be a folder that only you may enter; remove it, or run `chmod 700 {sockets}`")
