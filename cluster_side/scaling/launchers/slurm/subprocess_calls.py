"""Runs Slurm's commands with a time limit and a clean environment.

Theory: `Question` runs a command in the background and is polled for its answer, so a controller that hangs blocks no decision.
Variables of the user's shell for Slurm (options, an array's numbers, a library to preload) would change what a command does, so
only the path of Slurm's configuration is passed on.

Clock policy: `beamtide.clock.monotonic`.
Invariants: a command that is over its time limit is killed and its answer is not used; nothing is left behind as a zombie.
"""

import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from beamtide import clock
from beamtide.errors import BadInput

COMMANDS = ("sbatch", "squeue", "scancel")
FOREIGN = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SINFO_", "SALLOC_", "SRUN_", "LD_", "BASH_FUNC_")
UNWANTED = {"DISPLAY", "XAUTHORITY", "BASH_ENV", "ENV", "PYTHONPATH"}
STEP = 0.002
"""Seconds between two polls of a command."""
GRACE = 2.0
"""Seconds that a command gets to end when its answer is not needed any more."""


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of a command. `code` None: it was killed because it exceeded its time limit."""

    code: int | None
    out: str
    said: str


class Question:
    """A command that runs; `answer` says what it printed, once it has ended."""

    def __init__(self, argv: Sequence[str], patience: float, stdin: str = "") -> None:
        self._out, self._said = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._end = clock.monotonic() + patience
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode())
            given.seek(0)
            self._process = subprocess.Popen(argv, stdin=given, stdout=self._out, stderr=self._said, env=environment())
        weakref.finalize(self, _abandon, self._process, self._out, self._said)

    def answer(self, wait: float = 0.0) -> CommandOutput | None:
        """Return the answer, after waiting for it up to `wait` seconds; None while there is none."""
        until = min(clock.monotonic() + wait, self._end)
        while self._process.poll() is None:
            if (now := clock.monotonic()) >= self._end:
                self._process.kill()
                self._process.wait()
                return self._read(None)
            if now >= until:
                return None
            clock.pause(STEP)
        return self._read(self._process.returncode)

    def _read(self, code: int | None) -> CommandOutput:
        texts = []
        for file in (self._out, self._said):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return CommandOutput(code, *texts)


def _abandon(process: subprocess.Popen[bytes], *files: IO[bytes]) -> None:
    """Give up the answer; a command that is under way, such as scancel, may still finish."""
    for file in files:
        file.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask(argv: Sequence[str], patience: float, stdin: str = "") -> CommandOutput:
    """Run a command until it ends, or for `patience` seconds at most."""
    answer = Question(argv, patience, stdin).answer(patience + 1)
    return answer or CommandOutput(None, "", "")


def environment() -> Mapping[str, str]:
    """Return the environment of Slurm's commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN) and name not in UNWANTED}
    if "SLURM_CONF" in os.environ:
        kept["SLURM_CONF"] = os.environ["SLURM_CONF"]
    return kept | {"SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


def require() -> None:
    """BadInput if Slurm's commands are not there."""
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise BadInput(
            f"launcher: slurm needs {', '.join(missing)} on the PATH of this host; start the autoscaler on a submit host of the"
            " cluster, or set launcher: local in the site file"
        )
