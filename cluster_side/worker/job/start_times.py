"""How long each stage of a job's start took.

The batch script notes in the environment when it began and when it became the container program; the kernel knows when this
process began. Clock policy: these are Unix times of one machine, read within seconds; if the clock jumped meanwhile, the stage is
0.
"""

import os
from collections.abc import Mapping

import msgspec

from beamtide import clock
from beamtide.messages.scaling import StartStages

BEGAN, ENTERED = "BEAMTIDE_BEGAN", "BEAMTIDE_ENTERED"
"""Environment variables with the Unix time at which the batch script began, and became the container program."""


def taken(environment: Mapping[str, str], began: float) -> StartStages:
    """Return the stages of this process, which came to its own code at `began` (monotonic clock) and is ready now."""
    loading = clock.monotonic() - began
    lived = _lived()
    entered = float(environment.get(ENTERED, 0.0))
    return StartStages(
        staging=max(0.0, entered - float(environment.get(BEGAN, entered))),
        image=max(0.0, clock.utc() - lived - entered) if entered else 0.0,
        imports=max(0.0, lived - loading),
        kernel=loading,
    )


def words(stages: StartStages) -> dict[str, float]:
    """Return the stages as a log line names them."""
    return {f"{stage}_s": round(seconds, 3) for stage, seconds in msgspec.structs.asdict(stages).items()}


def _lived() -> float:
    """Return for how long this process has lived, in seconds."""
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
