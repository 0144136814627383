"""A fork server: a process with everything imported that forks real components, so a killed one is back in milliseconds.

Run as a script it reads one command per line from standard input ("start sink", "kill sink") and answers each with a line;
`ForkServer` is the client. Each component is a process with its own sockets and spool, as `beamtide serve` makes it.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback
from types import TracebackType
from typing import NoReturn, Self

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from beamline_side.hosts import process  # noqa: E402
from beamtide.component import parent_death  # noqa: E402
from beamtide.config.models import Deployment  # noqa: E402


@dataclasses.dataclass(slots=True)
class ForkedServices:
    """The components that the script has forked."""

    deployment: Deployment
    folder: pathlib.Path
    pids: dict[str, int] = dataclasses.field(default_factory=dict)

    def obey(self, verb: str, name: str) -> object:
        """Carry out one command; return the answer."""
        match verb:
            case "start":
                self.pids[name] = self._fork(name)
                return self.pids[name]
            case "kill" | "freeze" | "thaw":
                wish = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}[verb]
                os.kill(self.pids[name], wish)
                if verb == "kill":
                    os.waitpid(self.pids.pop(name), 0)
                return name
        return self._dead()

    def _dead(self) -> dict[str, int]:
        """Return who ended by itself, and with which code."""
        ended = {}
        for name, pid in list(self.pids.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[name] = os.waitstatus_to_exitcode(status)
                del self.pids[name]
        return ended

    def _fork(self, name: str) -> int:
        parent = os.getpid()
        if pid := os.fork():
            return pid
        log = os.open(self.folder / "logs" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        self._live(name, parent)

    def _live(self, name: str, parent: int) -> NoReturn:
        code = 1
        try:
            parent_death.die_with(parent, signal.SIGKILL)
            if name in self.deployment.components():
                process.serve(self.deployment, name)
            else:
                kind, *words = name.split(".")
                getattr(importlib.import_module("tests.faults.load"), kind)(self.deployment, self.folder, *words)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


class ForkServer:
    """Starts, kills, freezes and thaws components; all of them end with it."""

    def __init__(self, deployment: Deployment, folder: pathlib.Path) -> None:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._parent = subprocess.Popen(
            [sys.executable, __file__, deployment.model_dump_json(), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.close()
        self._parent.wait(20)
        self._parent.stdout.close()

    def start(self, *names: str) -> list[int]:
        """Start components or actors; return their processes."""
        return [int(str(self._order("start", name))) for name in names]

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self._order("kill", name)

    def restart(self, name: str) -> int:
        """SIGKILL, and start anew."""
        self.kill(name)
        return self.start(name)[0]

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self._order("freeze", name)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._order("thaw", name)

    def ended(self) -> dict[str, int]:
        """Return who ended by itself since the last look, with its exit code."""
        found = self._order("look", "")
        assert isinstance(found, dict)
        return found

    def log(self, name: str) -> str:
        """Return what a component wrote."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def _order(self, verb: str, name: str) -> object:
        assert self._parent.stdin
        assert self._parent.stdout
        self._parent.stdin.write(f"{verb} {name}\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        assert answer, "the fork server is gone"
        return json.loads(answer)


def main() -> None:
    """Obey until the input ends."""
    for module in process.LOOPS.values():
        importlib.import_module(f"beamline_side.services.{module}")
    for room in ("buffer.buffer", "sorter.sorter", "sink.sink", "distributor.distributor", "fence", "metadata", "topology"):
        importlib.import_module(f"beamline_side.cores.{room}")
    importlib.import_module("tests.faults.load")
    parent_death.die_with(os.getppid(), signal.SIGKILL)
    forked = ForkedServices(Deployment.model_validate_json(sys.argv[1]), pathlib.Path(sys.argv[2]))
    for line in sys.stdin:
        verb, _, name = line.rstrip("\n").partition(" ")
        print(json.dumps(forked.obey(verb, name)), flush=True)
    for name in list(forked.pids):
        forked.obey("kill", name)


if __name__ == "__main__":
    main()
