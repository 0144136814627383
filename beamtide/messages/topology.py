"""Components and their state, as the topology manager knows them. Soft state: rebuilt from heartbeats within seconds."""

from typing import Literal

import msgspec

from beamtide.messages.base import Message

ComponentState = Literal["starting", "running", "draining", "stopped", "lost"]


class ComponentCard(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Who a component is: its unique name ("buffer.xrf"), kind ("buffer"), address, neighbours, configuration (JSON)."""

    name: str
    kind: str
    address: str
    upstream: tuple[str, ...] = ()
    downstream: tuple[str, ...] = ()
    configuration: str = "{}"
    host: str = ""
    pid: int = 0
    version: str = ""
    boot: str = ""
    """Changes with every start of the process."""


class Hello(Message, frozen=True, kw_only=True):
    """Register (or register anew); answered `Ok`."""

    card: ComponentCard


class Heartbeat(Message, frozen=True, kw_only=True):
    """The component is alive; `progress` holds numbers to show ("queued", "done"), `why` says why work waits ("" = it does not).

    Answered `Ok`, or `Unregistered` by a topology manager that does not know this boot: say `Hello` again.
    """

    name: str
    boot: str
    state: ComponentState = "running"
    progress: dict[str, float] = {}
    why: str = ""


class Unregistered(Message, frozen=True, kw_only=True):
    """This topology manager does not know you (it was restarted): send `Hello`."""

    name: str


class ComponentReport(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The last known state of a component; `age` is the time since its last heartbeat in seconds."""

    card: ComponentCard
    state: ComponentState
    progress: dict[str, float]
    why: str
    age: float


class TopologyRequest(Message, frozen=True, kw_only=True):
    """Answer with `Topology` when its version is above `after`, or after `wait` seconds in any case."""

    after: int = -1
    wait: float = 0.0


class Topology(Message, frozen=True, kw_only=True):
    """All components."""

    components: tuple[ComponentReport, ...]
    version: int
