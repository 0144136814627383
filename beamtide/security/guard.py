"""The guard of one service: which keys it accepts, and which messages each may send.

Clock policy: `beamtide.clock`, wall time for expiry, monotonic for how often the list is read.
"""

import os
import pathlib
from dataclasses import dataclass, field

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.messages import Message
from beamtide.security.key_files import COMPONENT, Identity, KeyEntry, read_allowed, read_identity
from beamtide.security.roles import Role, may

LOOK = 1.0
"""The list is read again after so many seconds: a revoked key is refused that soon."""
OWN_KEY = "BEAMTIDE_KEY"
"""Environment variable with the path of the key file that commands and workers use."""


@dataclass(slots=True)
class Guard:
    """Decides by the list in one folder; while that cannot be trusted, only our own services are let in."""

    identity: Identity
    folder: pathlib.Path
    beamtime: str = ""
    entries: dict[str, KeyEntry] = field(default_factory=dict)
    """By public key, which is also the user id of a connection: names can be reused, keys are unique."""
    trouble: str = ""
    _passed: set[tuple[str, type[Message]]] = field(default_factory=set)
    """Which key may send which message: answers found since the list was read last."""
    _seen: int = -1
    _next: float = 0.0

    def entry(self, public: str) -> KeyEntry | None:
        """Return the entry of a key, if it is accepted now."""
        self._look()
        entry = self.entries.get(public)
        return entry if entry is not None and not entry.refusal(self.beamtime, clock.utc()) else None

    def refusal(self, public: str, message: type[Message]) -> str:
        """Return why the owner of a key may not send this message, or ""."""
        self._look()
        passed = self._passed
        if (public, message) in passed:
            return ""
        entry = self.entries.get(public)
        if entry is None:
            return "your key is not on the list of this site any more; ask its staff for another"
        if why := entry.refusal(self.beamtime, clock.utc()):
            return f"your key {entry.name} does not open this site: {why}; ask its staff for another"
        if not may(entry.role, message):
            return f"your key {entry.name} is for a {entry.role}, who may not send {message.__name__}"
        passed.add((public, message))
        return ""

    def _look(self) -> None:
        now = clock.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK
        try:
            changed = os.stat(self.folder / "allowed").st_mtime_ns
            if changed != self._seen or self.trouble:
                self.entries, self.trouble, self._seen = read_allowed(self.folder), "", changed
        except (BadInput, OSError) as error:
            own = self.identity.entry  # services must find each other again when the list has been corrected
            self.entries, self.trouble = {own.public: own}, f"only components are let in: {error}"
        self._passed = set()  # after the list, and a new set: the authenticator reads it too, in its own thread


def guard_of(deployment: Deployment) -> Guard | None:
    """Return the guard of a site's services; None where sockets are files in our folder, or there are no keys."""
    keys = keys_of(deployment)
    if keys is None:
        return None
    identity = read_identity(keys / f"{COMPONENT}.key")
    if identity.entry.role != COMPONENT:
        raise BadInput(
            f"{keys}/{COMPONENT}.key is a key for a {identity.entry.role}; make the right one with `beamtide keys new`"
        )
    return Guard(identity, keys, deployment.site.beamtime or "")


def identity_of(deployment: Deployment, role: Role) -> Identity | None:
    """Return the key that a process of this role uses; None where no keys are used. BadInput: it cannot be used."""
    keys = keys_of(deployment)
    if keys is None:
        return None
    own = os.environ.get(OWN_KEY) if role != COMPONENT else None
    return read_identity(pathlib.Path(own) if own else keys / f"{role}.key")


def keys_of(deployment: Deployment) -> pathlib.Path | None:
    """Return the folder of keys, if sockets need them: a file socket is protected by its folder."""
    network = deployment.site.network
    return None if network.bind == "ipc" else network.keys
