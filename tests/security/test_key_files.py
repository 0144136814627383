"""Key files are believed only when they are ours, no link, and closed to others; the commands never show a secret."""

import json
import os
import pathlib

import pytest
from typer.testing import CliRunner

from beamtide import clock
from beamtide.cli import main
from beamtide.config import site
from beamtide.errors import BadInput
from beamtide.security import guard
from beamtide.security.key_files import read_allowed, read_identity
from tests.security.sites import Door, site_keys
from tests.system.deployments import real_site


@pytest.fixture
def door(tmp_path: pathlib.Path) -> Door:
    return site_keys(tmp_path)


def ran(*words: str) -> str:
    """Run a command; return what it printed, or raise what it raised."""
    result = CliRunner().invoke(main.build(), list(words))
    if isinstance(result.exception, BadInput):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_comes_back_as_it_was_made(door: Door) -> None:
    for name, identity in door.given.items():
        path = door.folder / f"{name}.key"
        assert read_identity(path) == identity
        assert path.stat().st_mode & 0o777 == 0o600
    assert read_allowed(door.folder) == {one.entry.public: one.entry for one in door.given.values()}
    assert door.folder.stat().st_mode & 0o777 == 0o700


def test_a_link_is_not_followed(door: Door) -> None:
    key = door.folder / "user.key"
    key.rename(door.folder / "elsewhere")
    key.symlink_to(door.folder / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        read_identity(key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(door: Door, mode: int) -> None:
    (door.folder / "user.key").chmod(mode)
    with pytest.raises(BadInput, match="open to others; chmod 600"):
        read_identity(door.folder / "user.key")


def test_a_list_that_others_can_write_is_refused(door: Door) -> None:
    (door.folder / "allowed" / "user.json").chmod(0o620)
    with pytest.raises(BadInput, match="open to others"):
        read_allowed(door.folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(door: Door) -> None:
    os.chown(door.folder / "user.key", 12345, -1)
    with pytest.raises(BadInput, match="belongs to somebody else"):
        read_identity(door.folder / "user.key")


@pytest.mark.parametrize("content", ["", "{}", '{"entry": {"name": "x"}, "secret": 1, "server": 2}', "[]", "null"])
def test_a_damaged_key_is_one_sentence(door: Door, content: str) -> None:
    (door.folder / "user.key").write_text(content)
    with pytest.raises(BadInput, match="beamtide keys new"):
        read_identity(door.folder / "user.key")


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    deployment = real_site(tmp_path / "site", tmp_path / "raw")
    deployment.file.write_text(deployment.file.read_text() + "network: {bind: 127.0.0.1, keys: keys}\n")
    return deployment.file


def test_keys_are_made_listed_and_revoked(config: pathlib.Path) -> None:
    printed = ran("keys", "new", "component", "-c", str(config))
    printed += ran(
        "keys", "new", "viewer", "--name", "guest", "--beamtime", "11010000", "--days", "2", "-c", str(config), "--json"
    )
    folder = config.parent / "keys"
    guest = read_identity(folder / "guest.key")
    assert (guest.entry.role, guest.entry.beamtime) == ("viewer", "11010000")
    assert 1.9 < (guest.entry.expires - clock.utc()) / 86400 <= 2
    listed = json.loads(ran("keys", "list", "-c", str(config), "--json"))["keys"]
    assert {one["name"]: (one["role"], one["over"]) for one in listed} == {
        "component": ("component", False),
        "guest": ("viewer", False),
    }
    printed += ran("keys", "list", "-c", str(config)) + ran("keys", "revoke", "guest", "-c", str(config))
    assert [one.name for one in read_allowed(folder).values()] == ["component"]
    assert not (folder / "guest.key").exists()
    assert guest.secret not in printed
    assert read_identity(folder / "component.key").secret not in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new", "admin"], "there are: component, worker, user, viewer"),
        (["new", "user"], "component.key cannot be read"),
        (["new", "component", "--name", "other"], "leave --name out"),
        (["revoke", "nobody"], "there is no key 'nobody'"),
        (["revoke", "../allowed"], "there is no key"),
    ],
)
def test_wrong_wishes_are_one_sentence(config: pathlib.Path, words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ran("keys", *words, "-c", str(config))


def test_a_name_cannot_leave_the_folder_and_is_given_once(config: pathlib.Path) -> None:
    ran("keys", "new", "component", "-c", str(config))
    with pytest.raises(BadInput, match="is no name for a key"):
        ran("keys", "new", "user", "--name", "../../x", "-c", str(config))
    with pytest.raises(BadInput, match="is there already"):
        ran("keys", "new", "component", "-c", str(config))


def test_an_address_that_others_can_reach_needs_keys(config: pathlib.Path) -> None:
    text = config.read_text().replace("127.0.0.1", "0.0.0.0")
    config.write_text(text)
    assert site.load(config).site.network.bind == "0.0.0.0"
    config.write_text(text.replace(", keys: keys", ""))
    with pytest.raises(BadInput, match="there are no keys"):
        site.load(config)


def test_services_do_not_start_without_their_key(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    deployment = site.load(config)
    with pytest.raises(BadInput, match="cannot be read"):
        guard.guard_of(deployment)
    site_keys(config.parent)
    made = guard.guard_of(deployment)
    assert made is not None
    assert made.identity.entry.role == "component"


def test_a_person_shows_the_key_of_the_environment(
    config: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = site_keys(config.parent)
    mine = tmp_path / "mine.key"
    (door.folder / "viewer.key").rename(mine)
    monkeypatch.setenv(guard.OWN_KEY, str(mine))
    deployment = site.load(config)
    assert guard.identity_of(deployment, "user") == door.given["viewer"]
    assert guard.identity_of(deployment, "component") == door.given["component"]  # a service's key is never taken from outside
