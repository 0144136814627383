"""All components of a site on this machine, one process each: for `beamtide serve all`, the demo, and `beamtide run`.

A component that dies is restarted after 0.4, 0.8, … 10 s, and from the second time on that is said; one that refuses its input
(exit code 2) is not: its message becomes the error of the host. The host has no thread: its user calls `tend` a few times a
second.
"""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from beamline_side.hosts.process import PARENT
from beamtide import clock
from beamtide.config.models import Deployment
from beamtide.errors import BadInput, Broken, NoAnswer
from beamtide.messages.topology import Topology, TopologyRequest
from beamtide.pump import Caller
from beamtide.security.guard import identity_of

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STEADY = 30.0
"""A component that ran this long (seconds) starts with the first pause again."""
READY_WITHIN = 60.0


@dataclass(slots=True)
class _ComponentProcess:
    process: subprocess.Popen[bytes]
    since: float
    pause: float = FIRST_PAUSE
    restart_at: float | None = None


class Host:
    """Keeps all components of a deployment alive while it is open."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._processes: dict[str, _ComponentProcess] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until every component has registered. BadInput: what a component refused."""
        (self._deployment.site.state / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            for component in self._deployment.components():
                self._processes[component] = _ComponentProcess(self._spawn(component), clock.monotonic())
            with Caller(identity_of(self._deployment, "component")) as caller:
                self._await_ready(caller)
        except BaseException:
            self.stop()
            raise

    def tend(self) -> None:
        """Restart components that died. BadInput: a component refuses its input."""
        now = clock.monotonic()
        for component, its in self._processes.items():
            code = its.process.poll()
            if code is None:
                continue
            if code == 2:
                raise BadInput(self._last_line(component))
            if its.restart_at is None:
                its.pause = FIRST_PAUSE if now - its.since > STEADY else min(LONGEST_PAUSE, 2 * its.pause)
                its.restart_at = now + its.pause
                if its.pause > 2 * FIRST_PAUSE:  # not the first time: whoever waits for it has to know
                    sys.stderr.write(f"{component} ended again ({_how(code)}) and is restarted. {self._last_line(component)}\n")
            elif now >= its.restart_at:
                its.process, its.since, its.restart_at = self._spawn(component), now, None

    def alive(self) -> dict[str, bool]:
        """Return which components run at this moment."""
        return {name: its.process.poll() is None for name, its in self._processes.items()}

    def stop(self) -> None:
        """Stop everything: the autoscaler and the source first, so that no new work starts; SIGKILL after 10 s."""
        for names in (("autoscaler", "source"), tuple(self._processes)):
            processes = [self._processes[name].process for name in names if name in self._processes]
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._processes.clear()

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Call `tend` until told to stop."""
        while not stopped():
            self.tend()
            clock.pause(0.1)

    def _spawn(self, component: str) -> subprocess.Popen[bytes]:
        command = ["autoscale"] if component == "autoscaler" else ["serve", component]
        with self._log(component).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "beamtide", *command, "-c", str(self._deployment.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {PARENT: str(os.getpid())},
            )

    def _await_ready(self, caller: Caller) -> None:
        end, missing, version = clock.monotonic() + READY_WITHIN, set(self._processes), -1
        while missing and clock.monotonic() < end:
            self.tend()
            try:
                question = TopologyRequest(after=version, wait=0.2)
                topology = caller.ask(self._deployment.address("topology"), question, Topology, patience=1.0)
            except NoAnswer:
                continue
            version = topology.version
            missing = set(self._processes) - {report.card.name for report in topology.components}
        if missing:
            first = sorted(missing)[0]
            raise Broken(f"{', '.join(sorted(missing))} did not start within {READY_WITHIN:.0f} s: {self._last_line(first)}")

    def _log(self, component: str) -> pathlib.Path:
        return self._deployment.site.state / "logs" / f"{component}.log"

    def _last_line(self, component: str) -> str:
        lines = self._log(component).read_text(errors="replace").strip().splitlines()
        return f"{component}: {lines[-1] if lines else 'it wrote nothing'} (log: {self._log(component)})"


def _how(code: int) -> str:
    """Return what an exit code says: a number, or the signal that ended it."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
