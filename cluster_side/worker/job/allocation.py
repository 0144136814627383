"""The allocation of this job: its name, the number of its workers, its end. Pure: the environment is an argument.

Theory: a job may get more than it asked for (whole nodes), and then has as many workers as fit by CPUs, memory and GPUs. A
requeued job keeps its id, so its name contains the restart count, to distinguish its leases from those before the restart.
Workers are pinned to CPUs only where no other job shares them: where the batch system bound the job to CPUs, or gave it the whole
node.

Clock policy: `utc` is Unix time; the batch system's clock is only believed where it ends the job sooner than its walltime would.
Invariants: at least one worker; never more than fit, as far as is known.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

SKEW = 60.0
"""Clocks that differ by more than so many seconds are reported."""


@dataclass(frozen=True, slots=True)
class SlotNeeds:
    """What one worker needs: CPUs, memory in MiB (0 = not said), GPUs."""

    cpus: int = 1
    memory_mb: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class NodeResources:
    """The machine we are on: how many CPUs it has, which of them are ours, and its memory in MiB."""

    cpus: int
    ours: AbstractSet[int]
    memory_mb: int


def job_name(environment: Mapping[str, str], otherwise: str) -> str:
    """Return the name under which this job leases: as the autoscaler knows it.

    A launcher's own word (`BEAMTIDE_JOB`) comes first: the jobs of another launcher may run in one job of Slurm.
    """
    if own := environment.get("BEAMTIDE_JOB"):
        return own
    array, element = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{element}" if array and element else environment.get("SLURM_JOB_ID")
    restarts = environment.get("SLURM_RESTART_COUNT", "0")
    return (job or otherwise) + (f"+{restarts}" if job and restarts not in ("", "0") else "")


def room(environment: Mapping[str, str], asked: int, needs: SlotNeeds, node: NodeResources) -> int:
    """Return how many workers this job holds: `asked`, or what fits into what Slurm gave us."""
    cpus = _number(environment, "SLURM_CPUS_ON_NODE")
    if not cpus:
        return asked
    memory = _number(environment, "SLURM_MEM_PER_NODE") or cpus * _number(environment, "SLURM_MEM_PER_CPU") or node.memory_mb
    fits = [cpus // needs.cpus]
    if needs.memory_mb:
        fits.append(memory // needs.memory_mb)
    if needs.gpus:
        visible = environment.get("CUDA_VISIBLE_DEVICES", "")
        gpus = _number(environment, "SLURM_GPUS_ON_NODE") or len([name for name in visible.split(",") if name])
        fits.append(gpus // needs.gpus)
    return max(1, min(fits))


def seconds_left(environment: Mapping[str, str], walltime: float, utc: float) -> float | None:
    """Return for how many seconds the job may still run; None if there is no limit."""
    ends = _number(environment, "SLURM_JOB_END_TIME")
    told = [ends - utc] if ends else []
    mine = [walltime] if walltime > 0 else []
    return min((*told, *mine), default=None)


def skew(environment: Mapping[str, str], utc: float) -> str:
    """Return a sentence if the job began in the future by this node's clock; "" otherwise."""
    began = _number(environment, "SLURM_JOB_START_TIME")
    if not began or began - utc < SKEW:
        return ""
    return f"the clock of this node is {began - utc:.0f} s behind the batch system's; its walltime is counted from now instead"


def pins(slots: int, cpus: int, node: NodeResources, *, whole_node: bool) -> tuple[frozenset[int], ...]:
    """Return the CPUs of each worker; empty where others may use them, or where there are not enough."""
    alone = whole_node or len(node.ours) < node.cpus
    if not alone or len(node.ours) < slots * cpus:
        return ()
    ours = sorted(node.ours)
    return tuple(frozenset(ours[slot * cpus : (slot + 1) * cpus]) for slot in range(slots))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0
