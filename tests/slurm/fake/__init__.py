"""A fake Slurm for tests: six commands in a folder, which run jobs as processes and misbehave when they are told to.

    with FakeSlurm(folder) as slurm:        # its commands come first on PATH
        slurm.next("sbatch", "qos")         # the next sbatch is refused for a limit
        slurm.next("squeue", "truncated", 5)

Faults: "slow" (seconds) for every command; sbatch: "accepted, then silent" (seconds), "vanish", "held", "qos", "down", "socket",
"account", "reservation", "partition"; squeue: "empty", "truncated" (letters), "state" (word), "down"; sacct: "no database".
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any, Self

COMMANDS = ("sbatch", "squeue", "scancel", "sacct", "sinfo", "scontrol")


class FakeSlurm:
    """The commands, and what is known of them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self._path = folder, os.environ["PATH"]
        self._forgotten: list[dict[str, Any]] = []
        (folder / "bin").mkdir(parents=True)
        text = pathlib.Path(__file__).with_name("program.py").read_text()
        for name in COMMANDS:
            command = folder / "bin" / name
            command.write_text(f"#!{sys.executable} -IS\n{text}")
            command.chmod(0o755)

    def __enter__(self) -> Self:
        os.environ["PATH"] = f"{self.folder / 'bin'}:{self._path}"
        return self

    def __exit__(self, *_: object) -> None:
        os.environ["PATH"] = self._path
        for job in (*self._forgotten, *self.state()["jobs"].values()):
            if "pid" in job:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job["pid"], signal.SIGKILL)

    def next(self, command: str, fault: str, argument: Any = None) -> None:
        """Let the next call of a command go wrong; several wait in line."""
        path = self.folder / "faults.json"
        faults = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*faults, [command, fault, argument]]))

    def state(self) -> dict[str, Any]:
        """Return what this Slurm knows: jobs, and the calls of its commands."""
        path = self.folder / "state.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"jobs": {}, "calls": []}
        return found

    def change(self, **values: Any) -> None:
        """Change what this Slurm is like: max_array."""
        subprocess.run([self.folder / "bin/scontrol", "show", "config"], check=True, capture_output=True)
        path = self.folder / "state.json"
        path.write_text(json.dumps(self.state() | values))

    def forget(self, job: str) -> None:
        """Take a job out of the queue, as a purge does."""
        state = self.state()
        self._forgotten.append(state["jobs"].pop(job))
        (self.folder / "state.json").write_text(json.dumps(state))

    def calls(self, command: str) -> list[list[Any]]:
        """Return the calls of a command: [command, monotonic time, words, names of environment variables]."""
        return [call for call in self.state()["calls"] if call[0] == command]

    def requeue(self, job: str) -> None:
        """Kill a job and run it again under the same id."""
        subprocess.run([shutil.which("scontrol") or "scontrol", "requeue", job], check=True)
