"""Key files: one secret file per key (0600), and a list of who is allowed in.

Theory: the folder of keys (0700) holds `NAME.key`, the secret for the user of the key, and `allowed/NAME.json`, which says what
the key is for; services read only the latter. A key is revoked by removing it from the list; services read the list again when
its folder has changed, at most once a second, and then refuse messages on open connections too. A file is trusted only if it
belongs to us, is no link, and nobody else may read it (a secret) or write it (the list).

Clock policy: expiry is Unix time, compared by the callers' `utc`. Source of key pairs: ZeroMQ RFC 26 (CurveZMQ), Z85 text.
"""

import json
import os
import pathlib
import stat
from dataclasses import asdict, dataclass
from typing import Any

from beamtide.config.section import NAME
from beamtide.errors import BadInput
from beamtide.security.roles import ROLES, Role

COMPONENT = "component"
"""The key that all services of a site share; clients know only its public half."""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of the list: whose key, what for, until when (Unix time). `beamtime` "" is any."""

    name: str
    role: Role
    public: str
    expires: float
    beamtime: str = ""

    def refusal(self, beamtime: str, utc: float) -> str:
        """Return why this key does not open that site now, or ""."""
        if utc >= self.expires:
            return "it has expired"
        if self.beamtime not in ("", beamtime):
            return f"it is for beamtime {self.beamtime}"
        return ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key with its secret, and the public key of the services that it opens."""

    entry: KeyEntry
    secret: str
    server: str

    def __repr__(self) -> str:
        """Never show the secret."""
        return f"Identity({self.entry.name})"


def read_identity(path: pathlib.Path) -> Identity:
    """Read a secret file; BadInput says why it cannot be used."""
    content = _read(path, secret=True)
    try:
        return Identity(_entry(content["entry"]), str(content["secret"]), str(content["server"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} is not a Beamtide key file; make a new one with `beamtide keys new`") from error


def read_allowed(folder: pathlib.Path) -> dict[str, KeyEntry]:
    """Return the list, by public key. BadInput: a file of it cannot be trusted."""
    found = {}
    for path in sorted((folder / "allowed").glob("*.json")):
        content = _read(path, secret=False)
        try:
            entry = _entry(content)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{path} is no entry of a key list; remove it, and make the key again: `beamtide keys new`") from error
        found[entry.public] = entry
    return found


def write(folder: pathlib.Path, identity: Identity) -> pathlib.Path:
    """Write a new key and put it on the list; return the secret file. BadInput: there is one of that name."""
    name = identity.entry.name
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name for a key: letters, digits and _ . + - only")
    allowed = folder / "allowed"
    allowed.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    path = folder / f"{name}.key"
    secret = {"entry": asdict(identity.entry), "secret": identity.secret, "server": identity.server}
    _create(path, secret)
    _create(allowed / f"{name}.json", asdict(identity.entry))
    return path


def revoke(folder: pathlib.Path, name: str) -> None:
    """Remove a key from the list, and its secret file if it is here. BadInput: there is no such key."""
    entry = folder / "allowed" / f"{name}.json"
    if not NAME.fullmatch(name) or not entry.exists():
        raise BadInput(f"there is no key {name!r} in {folder}; `beamtide keys list` shows them")
    entry.unlink()
    (folder / f"{name}.key").unlink(missing_ok=True)


def _entry(content: Any) -> KeyEntry:
    entry = KeyEntry(**content)
    if entry.role not in ROLES or len(entry.public) != 40 or not isinstance(entry.expires, int | float):
        raise ValueError(entry.name)
    return entry


def _create(path: pathlib.Path, content: dict[str, Any]) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise BadInput(f"{path} is there already; revoke that key first, or choose another --name") from error
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)


def _read(path: pathlib.Path, *, secret: bool) -> Any:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        why = "is a link; keys are read from the file itself" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise BadInput(f"the key file {path} {why}") from error
    with os.fdopen(descriptor) as file:
        found = os.fstat(descriptor)
        if found.st_uid not in (os.geteuid(), 0):
            raise BadInput(f"the key file {path} belongs to somebody else (uid {found.st_uid}); give it to this user")
        if stat.S_IMODE(found.st_mode) & (0o077 if secret else 0o022):
            raise BadInput(f"the key file {path} is open to others; chmod 600 {path}")
        try:
            return json.load(file)
        except ValueError as error:
            raise BadInput(f"the key file {path} is damaged; make a new one with `beamtide keys new`") from error
