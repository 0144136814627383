"""The buffer service of one pipeline."""

from beamline_side.cores.buffer.buffer import BufferMachine
from beamline_side.services.base import Service, pipeline_of
from beamtide.config import Deployment
from beamtide.machine import Machine
from beamtide.pump import Store

QUEUED = 1000
"""Bytes of memory that a waiting task may take; it takes some 350."""


def build(deployment: Deployment, name: str, store: Store) -> Machine:
    """Make the core of "buffer.<pipeline>"."""
    site = deployment.site
    return BufferMachine(deployment.pipelines[pipeline_of(name)], site.leases, store, (site.budgets.memory << 20) // QUEUED)


def links(name: str) -> dict[str, str]:
    """Return whom a buffer talks to."""
    return {"distributor": "distributor", "fence": "fence", "sorter": f"sorter.{pipeline_of(name)}"}


SERVICE = Service(kind="buffer", build=build, links=links)
