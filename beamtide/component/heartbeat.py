"""Heartbeats of a component without a socket of its own (source, writer, autoscaler) to the topology manager."""

import os
import platform

from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.machine import Send
from beamtide.messages.topology import ComponentCard
from beamtide.pump import Caller
from beamtide.session import Session
from beamtide.version import __version__


def card_of(deployment: Deployment, name: str, neighbours: tuple[str, ...] = ()) -> ComponentCard:
    """Return the card of a component of this deployment, in this process."""
    added, pipeline = deployment.added.get(name), deployment.pipelines.get(name.partition(".")[2])
    return ComponentCard(
        name=name,
        kind=added.kind if added else name.partition(".")[0],
        address=deployment.address(name),
        upstream=neighbours,
        configuration=(added or pipeline or deployment.site).model_dump_json(),
        host=platform.node(),
        pid=os.getpid(),
        version=__version__,
        boot=os.urandom(8).hex(),
    )


class ComponentHeartbeat:
    """Registers a component and sends its heartbeats; never waits for an answer."""

    def __init__(self, deployment: Deployment, name: str, caller: Caller) -> None:
        self._session = Session(card_of(deployment, name))
        self._address, self._caller = deployment.address("topology"), caller

    def beat(self, progress: dict[str, float], why: str = "") -> None:
        """Send a heartbeat if it is due; call this at least once a second."""
        for effect in self._session.tick(clock.monotonic(), "running", progress, why):
            if isinstance(effect, Send):
                for letter in self._caller.tell(self._address, effect.message):
                    self._session.heard(letter.message)
