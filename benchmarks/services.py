"""Real services for a benchmark, each its own process (`beamtide serve`), on TCP loopback and on a real disk."""

import contextlib
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from beamtide.config import site
from beamtide.config.models import Deployment
from beamtide.errors import WireError
from beamtide.messages.scaling import BufferGauge, GaugeRequest
from beamtide.pump import Caller
from beamtide.pump.authentication import new_pair
from beamtide.security.guard import identity_of
from beamtide.security.key_files import Identity, KeyEntry, write

SITE = """
site: bench
roots: {{raw: "{folder}/raw", processed: "{folder}/processed", shared: "{folder}"}}
state: "{folder}/state"
pipelines: [encoders.yaml]
scaling: {{caps: {{jobs: 1, node_hours_per_day: 100}}, idle_exit: 60}}
network: {{bind: 127.0.0.1, ports: "{first}-{last}"{keys}}}
leases: {{ttl: 60, beat: 20}}
"""
ENCODERS = """
pipeline: encoders
modality: encoders
source: {{match: "*.csv", format: bench, frames_per_task: 1}}
buffer: {{order: {order}}}
settings: {{axes: {{x: {{field: x}}}}}}
"""
COMPONENTS = 10
FAR = 4e9


def deployment_in(folder: pathlib.Path, *, curve: bool, order: str = "fifo") -> Deployment:
    """Write a site with one pipeline below `folder`, with keys or without; `order` is that of its buffer."""
    for name in ("raw", "processed", "state"):
        (folder / name).mkdir(parents=True)
    first = _free_ports()
    (folder / "site.yaml").write_text(
        SITE.format(folder=folder, first=first, last=first + COMPONENTS - 1, keys=", keys: keys" if curve else "")
    )
    (folder / "encoders.yaml").write_text(ENCODERS.format(order=order))
    if curve:
        _keys(folder / "keys")
    return site.load(folder / "site.yaml")


@contextlib.contextmanager
def serving(deployment: Deployment, *components: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run these components; SIGTERM at the end."""
    log = (deployment.site.state / "bench.log").open("ab")
    command = [sys.executable, "-m", "beamtide", "serve"]
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in components:
            running[name] = subprocess.Popen([*command, name, "-c", str(deployment.file)], stdout=log, stderr=log)
        yield running
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def await_answer(deployment: Deployment, component: str) -> None:
    """Wait until a component answers, be it that it does not know the question."""
    with Caller(identity_of(deployment, "component")) as caller, contextlib.suppress(WireError):
        caller.ask(deployment.address(component), GaugeRequest(), BufferGauge, patience=30.0)


def _keys(folder: pathlib.Path) -> None:
    public, secret = new_pair()
    write(folder, Identity(KeyEntry("component", "component", public, FAR), secret, public))
    own, own_secret = new_pair()
    write(folder, Identity(KeyEntry("worker", "worker", own, FAR), own_secret, public))


def _free_ports() -> int:
    """Return the first of a range of ports that nobody listens at."""
    for first in range(29000, 32000, COMPONENTS):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + COMPONENTS):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise OSError("no free ports between 29000 and 32000")
