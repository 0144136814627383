"""Commands for keys: keys new|list|revoke. No secret is ever printed."""

import pathlib
from dataclasses import asdict
from typing import Annotated

import typer

from beamtide import clock
from beamtide.cli.screen import DEFAULT_SITE, Json, SiteFile, answer, table
from beamtide.config import site
from beamtide.errors import BadInput

DAY = 86400.0
SERVICES_DAYS = 3650.0


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    keys = typer.Typer(help="Make, list and revoke the keys that open a site's network.", no_args_is_help=True)
    keys.command("new")(keys_new)
    keys.command("list")(keys_list)
    keys.command("revoke")(keys_revoke)
    app.add_typer(keys, name="keys", rich_help_panel="Set up")


def keys_new(  # noqa: PLR0913, PLR0917  one argument per option
    role: Annotated[str, typer.Argument(help="component, worker, user or viewer; the first one must be component.")],
    name: Annotated[str, typer.Option(help="What the key is called (default: as its role).")] = "",
    beamtime: Annotated[str, typer.Option(help="Only for this beamtime (default: for any).")] = "",
    days: Annotated[float, typer.Option(min=0, help="Days until it expires (default: 14, and 3650 for components).")] = 0.0,
    config: SiteFile = DEFAULT_SITE,
    as_json: Json = False,
) -> None:
    """Make a key. Give the file to the person who will use it."""
    from beamtide.pump.authentication import new_pair
    from beamtide.security.key_files import COMPONENT, Identity, KeyEntry, read_identity, write
    from beamtide.security.roles import ROLES

    folder = _folder(config)
    if role not in ROLES:
        raise BadInput(f"there is no role {role!r}; there are: {', '.join(ROLES)}")
    public, secret = new_pair()
    expires = clock.utc() + DAY * (days or (SERVICES_DAYS if role == COMPONENT else 14.0))
    entry = KeyEntry(name or role, role, public, expires, beamtime)
    if role == COMPONENT:
        if entry.name != COMPONENT:
            raise BadInput("all components of a site share one key, which is called component; leave --name out")
        server = public
    else:
        server = read_identity(folder / f"{COMPONENT}.key").entry.public
    path = write(folder, Identity(entry, secret, server))
    value = {"name": entry.name, "role": role, "beamtime": beamtime, "expires": clock.iso(expires), "file": str(path)}
    line = f"{path} opens {config} for a {role} until {clock.iso(expires)[:10]}"
    answer(value, [line, "Its user sets BEAMTIDE_KEY to the path of their copy (mode 600)."], as_json=as_json)


def keys_list(config: SiteFile = DEFAULT_SITE, as_json: Json = False) -> None:
    """List the keys that open this site, and when they expire."""
    from beamtide.security.key_files import read_allowed

    now, found = clock.utc(), read_allowed(_folder(config))
    keys = [asdict(one) | {"expires": clock.iso(one.expires), "over": now >= one.expires} for one in found.values()]
    rows = [(one.name, one.role, one.beamtime or "any", _until(one.expires, now)) for one in found.values()]
    lines = table(("name", "role", "beamtime", "until"), rows) or ["There are no keys."]
    answer({"keys": keys}, lines, as_json=as_json)


def keys_revoke(
    name: Annotated[str, typer.Argument(help="As `keys list` shows it.")], config: SiteFile = DEFAULT_SITE, as_json: Json = False
) -> None:
    """Revoke a key. It is refused at once, also on open connections."""
    from beamtide.security.key_files import revoke

    revoke(_folder(config), name)
    answer({"revoked": name}, [f"{name} is revoked; running services refuse it within a second."], as_json=as_json)


def _until(expires: float, now: float) -> str:
    return clock.iso(expires)[:16].replace("T", " ") + (" (over)" if now >= expires else "")


def _folder(config: pathlib.Path) -> pathlib.Path:
    keys = site.load(config).site.network.keys
    if keys is None:
        raise BadInput(f"{config} names no folder for keys; add keys under network, for example keys: /etc/beamtide/keys")
    return keys
