"""Mutated messages that can still be read reach every core, and a service: neither breaks a rule, dies, or grows."""

import pathlib
import random

import pytest
import zmq

from beamtide import codec
from beamtide.errors import WireError
from beamtide.machine import Forget, Heard, Keep, Tick
from beamtide.messages import Ok
from beamtide.messages.base import Seconds
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.pump import Caller
from tests.contract.test_hostile_wire import mutated
from tests.faults import load
from tests.faults.fork_server import ForkServer
from tests.faults.kills import LEASES
from tests.faults.soak import resident
from tests.stories.shelf import Shelf
from tests.world.world import COMPONENTS, LINKS, build

MESSAGES = 4000
GROWTH = 20 << 20


@pytest.mark.parametrize("name", [name for name in COMPONENTS if not name.endswith("q")])
def test_no_message_makes_a_core_break_a_rule(name: str) -> None:
    """From strangers, and from each peer that it trusts to be another component."""
    chance, shelf, read = random.Random(name), Shelf(), 0
    machine = build(name, shelf, chance.choice(["fifo", "priority"]))
    peers = [b"stranger", b"another", *(b">" + link.encode() for link in LINKS.get(name, {}))]
    for number in range(MESSAGES):
        try:
            letter = codec.decode(mutated(chance))
        except WireError:
            continue
        read += 1
        for event in (Heard(chance.choice(peers), letter.message, letter.id, letter.reply_to, letter.arrays), Tick()):
            for effect in machine.handle(event, Seconds(number / 100)):
                if isinstance(effect, Keep):
                    shelf.keep(effect.table, effect.key, effect.body)
                elif isinstance(effect, Forget):
                    shelf.now.pop((effect.table, effect.key), None)
            machine.check()
    assert read > MESSAGES / 20
    build(name, shelf, "fifo").check()


@pytest.mark.system
def test_a_service_lives_through_messages_that_were_mutated(tmp_path: pathlib.Path) -> None:
    deployment, chance = load.site(tmp_path, LEASES), random.Random(1)
    with ForkServer(deployment, tmp_path) as forks, Caller() as good, zmq.Context() as context:
        (pid,) = forks.start("buffer.p")
        address = deployment.address("buffer.p")
        good.ask(address, GaugeRequest(), BufferGauge, patience=30)
        before = resident(pid)
        with context.socket(zmq.DEALER) as stranger:
            stranger.linger, stranger.sndhwm, stranger.rcvhwm = 0, 10_000, 10_000
            stranger.connect(address)
            for _ in range(4000):
                stranger.send_multipart(mutated(chance) or [codec.encode(Ok())[0]])
            good.ask(address, GaugeRequest(), BufferGauge, patience=60)
            good.ask(address, GaugeRequest(), BufferGauge, patience=60)
        grown = resident(pid) - before
        assert grown < GROWTH, f"{grown >> 20} MiB"
        assert forks.ended() == {}
