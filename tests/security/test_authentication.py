"""Who is let in at a real socket: unknown keys, old keys, wrong roles, plain clients; and when the authenticator has died."""

import dataclasses
import pathlib

import msgspec.inspect
import pytest
import zmq

from beamtide import clock, codec
from beamtide.errors import BadInput, Broken, NoAnswer
from beamtide.messages import KINDS, Message, Ok
from beamtide.messages.tasks import LeaseRequest, StatusRequest, SubmitRequest
from beamtide.pump import Caller, authentication
from beamtide.pump.authentication import Authenticator, new_pair, self_test
from beamtide.security import guard as guarding
from beamtide.security.guard import Guard
from beamtide.security.key_files import COMPONENT, Identity, KeyEntry, revoke
from beamtide.security.roles import ROLES, may
from tests.contract.test_wire_golden import sample
from tests.security.sites import Door, free_address, served, site_keys

pytestmark = pytest.mark.system
SHORT = 0.6
READ = StatusRequest(scan="")


@pytest.fixture
def door(tmp_path: pathlib.Path) -> Door:
    return site_keys(tmp_path)


def says(address: str, identity: Identity | None, message: Message = READ, patience: float = SHORT) -> str:
    """Return "ok", the refusal, or "silence"."""
    with Caller(identity) as caller:
        try:
            caller.ask(address, message, Ok, patience=patience)
        except BadInput as error:
            return str(error)
        except NoAnswer:
            return "silence"
    return "ok"


def comes_in(address: str, identity: Identity) -> bool:
    """Whether the door opens to a key, be there anybody behind it or not."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as visitor:
        visitor.linger = 0
        authentication.secure_client(visitor, identity)
        with visitor.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
            visitor.connect(address)
            return bool(monitor.poll(1000 * SHORT))


def test_every_role_is_held_to_its_row_for_every_kind(door: Door) -> None:
    with served(door) as (address, core, _):
        for role in ROLES:
            with Caller(door.given[role]) as caller:
                for kind in KINDS.values():
                    core.heard.clear()
                    try:
                        caller.ask(address, sample(msgspec.inspect.type_info(kind)), Ok, patience=5)
                        said = ""
                    except BadInput as error:
                        said = str(error)
                    assert (said == "") is may(role, kind), (role, kind)
                    assert bool(core.heard) is may(role, kind)  # what is refused never reaches the core
                    assert not said or f"is for a {role}, who may not send {kind.__name__}" in said


def test_strangers_stay_outside(door: Door) -> None:
    public, secret = new_pair()
    stranger = Identity(KeyEntry("user", "user", public, 2e12), secret, door.given[COMPONENT].server)
    other_site = dataclasses.replace(door.given["user"], server=new_pair()[0])
    with served(door) as (address, core, _):
        assert says(address, stranger) == "silence"
        assert says(address, other_site) == "silence"
        assert says(address, None) == "silence"
        assert says(address, door.given["viewer"], patience=5) == "ok"
        assert len(core.heard) == 1


def test_other_mechanisms_stay_outside(door: Door) -> None:
    with served(door) as (address, core, _), zmq.Context() as context:
        plain = context.socket(zmq.DEALER)
        plain.linger = 0
        plain.plain_username, plain.plain_password = b"user", b"guess"
        plain.connect(address)
        plain.send(b"hello")
        plain.rcvtimeo = int(1000 * SHORT)
        with pytest.raises(zmq.Again):
            plain.recv()
        plain.close()
        assert not core.heard


def test_a_key_ends_at_its_time_also_for_who_is_inside(door: Door) -> None:
    brief = door.give("guest", "user", seconds=1.5)
    with served(door) as (address, _, _), Caller(brief) as caller:
        assert caller.ask(address, READ, Ok, patience=5)
        while clock.utc() < brief.entry.expires:
            clock.pause(0.05)
        with pytest.raises(BadInput, match="guest does not open this site: it has expired"):
            caller.ask(address, READ, Ok, patience=5)
        assert says(address, brief) == "silence"


def test_a_revoked_key_is_refused_within_a_second(door: Door) -> None:
    with served(door) as (address, _, _), Caller(door.given["user"]) as caller:
        assert caller.ask(address, READ, Ok, patience=5)
        revoke(door.folder, "user")
        clock.pause(guarding.LOOK)  # so often the list is looked at
        with pytest.raises(BadInput, match="is not on the list of this site any more"):
            caller.ask(address, READ, Ok, patience=5)
        assert says(address, door.given["user"]) == "silence"


def test_a_name_given_again_does_not_let_the_old_key_in(door: Door) -> None:
    old = door.given["user"]
    revoke(door.folder, "user")
    new = door.give("user", "user")
    with served(door) as (address, _, _):
        assert says(address, old) == "silence"
        assert says(address, new, patience=5) == "ok"


def test_a_key_of_another_beamtime_opens_nothing(door: Door) -> None:
    mine, other = door.give("mine", "user", beamtime="11010000"), door.give("other", "user", beamtime="11020000")
    with served(door, beamtime="11010000") as (address, _, _):
        assert says(address, other) == "silence"
        assert says(address, mine, patience=5) == "ok"


def test_who_calls_itself_a_link_is_held_to_its_key(door: Door) -> None:
    with served(door) as (address, core, _), zmq.Context() as context:
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.routing_id = b">topology"
        authentication.secure_client(socket, door.given["viewer"])
        socket.connect(address)
        socket.send_multipart([bytes(part) for part in codec.encode(SubmitRequest(tasks=()), 1)])
        socket.rcvtimeo = 5000
        assert b"may not send SubmitRequest" in b"".join(socket.recv_multipart())
        socket.close()
        assert not core.heard


def test_a_list_that_cannot_be_believed_lets_only_components_in(door: Door) -> None:
    (door.folder / "allowed" / "user.json").chmod(0o666)
    (door.folder / "allowed" / "new.json").touch()
    with served(door) as (address, _, _):
        assert says(address, door.given["user"]) == "silence"
        assert says(address, door.given["component"], patience=5) == "ok"


def test_a_dead_keeper_closes_the_door_and_ends_the_service(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    with zmq.Context() as context:
        guard = Guard(door.given[COMPONENT], door.folder, _next=1e12, entries=None)  # type: ignore[arg-type]  the mistake
        monkeypatch.setattr("threading.excepthook", lambda _: None)
        keeper = Authenticator(context, guard)
        server = context.socket(zmq.ROUTER)
        server.linger = 0
        authentication.secure_server(server, guard)
        server.bind(address := free_address())
        assert not comes_in(address, door.given["user"])
        keeper._thread.join(5)
        with pytest.raises(Broken, match="authenticator has died"):
            keeper.check()
        assert not comes_in(address, door.given["user"]), "nobody answers for them any more"
        server.close()
    with served(door) as (address, _, _):
        assert comes_in(address, door.given["user"]), "a door with a keeper opens"


def test_a_door_that_opens_to_strangers_is_noticed_at_the_start(door: Door) -> None:
    guard = Guard(door.given[COMPONENT], door.folder)
    with zmq.Context() as context:
        server = context.socket(zmq.ROUTER)
        server.linger = 0
        authentication.secure_server(server, guard)
        server.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)  # the mistake: without a keeper everybody is let in
        server.bind(address := free_address())
        with pytest.raises(Broken, match="an unknown key was accepted"):
            self_test(context, address, guard)
        server.close()


def test_refusals_are_counted_and_logged_rarely(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    with served(door) as (address, _, pump), Caller(door.given["viewer"]) as caller:
        for _ in range(20):
            with pytest.raises(BadInput):
                caller.ask(address, LeaseRequest(worker="x\x1b[31m", job="j", wait=0.0), Ok, patience=5)
        assert pump._refusals == 20
    said = capfd.readouterr()
    assert 0 < (said.out + said.err).count("may not send LeaseRequest") <= 5  # the 1st, 2nd, 4th, 8th, 16th


def test_a_secret_is_never_shown(door: Door) -> None:
    assert door.given["user"].secret not in repr(door.given["user"])
    assert door.given["user"].secret not in repr(Guard(door.given["user"], door.folder))
