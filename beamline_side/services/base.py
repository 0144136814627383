"""What a service is: a name, a core to build, and the components it connects to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store


@dataclass(frozen=True, slots=True)
class Service:
    """A component that the pump drives.

    `build(deployment, name, store)` makes its core; `links(name)` says which links it has: name of the link -> component.
    """

    kind: str
    build: Callable[[Deployment, str, Store], Machine]
    links: Callable[[str], Mapping[str, str]]
    durable: bool = True


def pipeline_of(name: str) -> str:
    """Return the pipeline in a component's name: "xrf" for "buffer.xrf"."""
    return name.split(".", 1)[1]
