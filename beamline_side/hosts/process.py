"""One component in this process: the simplest host.

Exit codes: 0 stopped on request, 2 bad input (nothing was started), 75 a broken rule or disk (a restart replays the spool).
"""

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import structlog

from beamline_side.services.components import SERVICES
from beamline_side.spool.sqlite_spool import Spool
from beamtide import registry
from beamtide.component import parent_death, state_folder
from beamtide.component.heartbeat import card_of
from beamtide.component.service import NoStore, Service, links_of
from beamtide.config import added
from beamtide.config.models import Deployment
from beamtide.errors import BadInput
from beamtide.pump import Pump, stop_on_signals
from beamtide.security.guard import guard_of
from beamtide.session import Session

Loop = Callable[[Deployment, Callable[[], bool]], None]

LOOPS = {"source": "file_source", "writer": "writer.writer"}
SPARE_DESCRIPTORS = 512
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, LARGEST_BLOCK = 64 << 20, 32 << 20
PARENT = "BEAMTIDE_PARENT"
"""Environment variable with the id of the parent process, with which we end."""


def serve(deployment: Deployment, component: str) -> None:
    """Run one component until SIGTERM or SIGINT."""
    if PARENT in os.environ:
        parent_death.die_with(int(os.environ[PARENT]), signal.SIGTERM)
    if component not in deployment.components():
        raise BadInput(f"there is no component {component!r}; this site has: {', '.join(deployment.components())}")
    if problems := added.problems(deployment, component) if component in deployment.added else []:
        raise BadInput("\n".join(problems))
    state_folder.prepare(deployment)
    slots = max((pipeline.job.slots for pipeline in deployment.pipelines.values()), default=1)
    _allow_descriptors(deployment.site.scaling.caps.jobs * slots)
    structlog.get_logger().info("starts", component=component, address=deployment.address(component))
    kind = component.partition(".")[0]
    if component in deployment.added:
        _pump(deployment, component, registry.find("components", deployment.added[component].kind))
    elif kind in LOOPS:
        stopped: list[bool] = []
        stop_on_signals(lambda: stopped.append(True))
        run = cast(Loop, importlib.import_module(f"beamline_side.services.{LOOPS[kind]}").run)
        run(deployment, lambda: bool(stopped))
    elif kind in SERVICES:
        _pump(deployment, component, SERVICES[kind])
    else:
        raise BadInput(f"{component} is started by its own command: beamtide autoscale")


def _pump(deployment: Deployment, component: str, service: Service) -> None:
    links = links_of(deployment, component, service)
    if component != "topology":
        links["topology"] = "topology"
    spool = _spool(deployment, component) if service.durable else None
    try:
        machine = service.build(deployment, component, spool or NoStore())
        limits = replace(service.limits(deployment.site.budgets), guard=guard_of(deployment))
        card = card_of(deployment, component, tuple(links.values()))
        pump = Pump(machine, Session(card), {name: deployment.address(to) for name, to in links.items()}, spool, limits)
        stop_on_signals(pump.stop)
        gc.freeze()  # restored rows stay, and cores make no cycles: garbage collection took 10 % of the time
        gc.set_threshold(50_000, 20, 50)
        if service.data:
            keep_memory()
        pump.run()
    finally:
        if spool is not None:
            spool.close()


def _spool(deployment: Deployment, component: str) -> Spool:
    wanted = deployment.site.spool
    file = deployment.site.state / "spool" / f"{component}.sqlite"
    return Spool(file, wanted.durability, wanted.reserve << 20)


def keep_memory() -> None:
    """Let glibc keep up to `KEPT` freed bytes: it would return them, and the next payload would fault in each page again."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def _allow_descriptors(workers: int) -> None:
    """Raise our limit of open files to the system's limit: without free descriptors a socket silently accepts nobody."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < (needed := 4 * workers + SPARE_DESCRIPTORS):
        raise BadInput(
            f"with {workers} workers (scaling.caps.jobs times job.slots) a service may need {needed} open files, and the system "
            f"allows it {hard}: raise the hard limit (ulimit -Hn, or LimitNOFILE of its unit), or lower scaling.caps.jobs"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
