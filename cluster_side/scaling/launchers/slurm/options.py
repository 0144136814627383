"""The options of a submission: from an order and the site file to arguments of `sbatch`. Pure.

Theory: a place is where a job may run: the reservation first, then the list of partitions, then other clusters. Options are
passed as an argument list, each in the form --name=value and each value matched against a pattern: no shell ever reads them, and
no value can become an option. The script contains none.

Source: sbatch(1).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from beamtide.config.slurm import Slurm
from beamtide.errors import BadInput
from cluster_side.scaling.launchers.base import JobOrder

WARNING = 90
"""Seconds before the end of the walltime at which a job gets SIGTERM: longer than a worker needs to hand back its task."""

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,127}"
_PATTERNS = {
    "job-name": rf"{_WORD}",
    "comment": rf"{_WORD}",
    "array": r"0-\d{1,7}",
    "output": r"/[^\x00-\x1f%\\]*%A_%a\.log|/[^\x00-\x1f%\\]*%j\.log",
    "open-mode": "append",
    "export": "NONE",
    "signal": r"B:TERM@\d{1,5}",
    "time": r"[1-9]\d{0,7}",
    "nodes": r"[1-9]\d{0,4}",
    "ntasks": r"[1-9]\d{0,5}",
    "cpus-per-task": r"[1-9]\d{0,4}",
    "mem": r"\d{1,12}M",
    "gres": rf"{_WORD}:\d{{1,3}}",
    "partition": rf"{_WORD}(,{_WORD})*",
    "clusters": _WORD,
    "reservation": _WORD,
    "account": _WORD,
    "qos": _WORD,
    "constraint": r"[A-Za-z0-9_.:&|*()\[\],+=-]{1,200}",
    "exclude": rf"{_WORD}(,{_WORD})*",
}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where jobs may run; "" leaves the choice to Slurm."""

    partitions: tuple[str, ...] = ()
    reservation: str = ""
    cluster: str = ""
    account: str = ""

    def __str__(self) -> str:
        """Return a description for people."""
        words = [f"reservation {self.reservation}"] if self.reservation else []
        words += [f"partition {','.join(self.partitions)}"] if self.partitions else []
        words += [f"cluster {self.cluster}"] if self.cluster else []
        return ", ".join(words) or "the default partition"


def places(slurm: Slurm, gpus: int) -> tuple[Placement, ...]:
    """Return where a job may run, in the order in which places are tried."""
    own = (slurm.gpu_partitions if gpus else ()) or slurm.partitions
    account, here = slurm.account or "", slurm.cluster or ""
    reserved = (Placement(own, slurm.reservation, here, account),) if slurm.reservation else ()
    others = tuple(Placement(other.partitions, "", other.cluster, other.account or account) for other in slurm.elsewhere)
    return (*reserved, Placement(own, "", here, account), *others)


def options(order: JobOrder, slurm: Slurm, place: Placement) -> dict[str, str | None]:
    """Return the options of a submission; None: an option without a value. BadInput if a value is not allowed."""
    shape = order.shape
    many = "%A_%a" if order.count > 1 else "%j"
    chosen: dict[str, str | None] = {
        "job-name": order.name,
        "comment": order.token,
        "output": f"{slurm.logs or order.logs}/{order.name}-{many}.log",
        "open-mode": "append",
        "export": "NONE",
        "signal": f"B:TERM@{min(WARNING, shape.walltime_s // 2)}",
        "time": str(-(-shape.walltime_s // 60)),
        "nodes": str(shape.nodes),
        "ntasks": str(shape.ranks or shape.nodes),
        "no-requeue": None,
    }
    if order.count > 1:
        chosen["array"] = f"0-{order.count - 1}"
    return _checked(chosen | _size(order, slurm) | _where(order, slurm, place))


def words(options_: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the options as an argument list."""
    return tuple(f"--{name}" if value is None else f"--{name}={value}" for name, value in options_.items())


def _size(order: JobOrder, slurm: Slurm) -> dict[str, str | None]:
    shape = order.shape
    chosen: dict[str, str | None] = {}
    if slurm.whole_nodes:
        chosen["exclusive"] = None
    else:
        ranks_per_node = -(-shape.ranks // shape.nodes) if shape.ranks else 1
        chosen["cpus-per-task"] = str(max(1, shape.cpus // ranks_per_node))
    if not slurm.whole_nodes or shape.memory_mb:
        chosen["mem"] = f"{shape.memory_mb}M"
    if shape.gpus and slurm.gpus:
        chosen["gres"] = f"{slurm.gpus}:{shape.gpus}"
    return chosen


def _where(order: JobOrder, slurm: Slurm, place: Placement) -> dict[str, str | None]:
    constraint = (slurm.gpu_constraint if order.shape.gpus else None) or slurm.constraint
    chosen = {
        "partition": ",".join(place.partitions),
        "clusters": place.cluster,
        "reservation": place.reservation,
        "account": place.account,
        "qos": slurm.qos,
        "constraint": constraint,
        "exclude": ",".join(order.exclude) if place.cluster == (slurm.cluster or "") else "",
    }
    return {name: value for name, value in chosen.items() if value}


def _checked(chosen: dict[str, str | None]) -> dict[str, str | None]:
    for name, value in chosen.items():
        if value is not None and not re.fullmatch(_PATTERNS[name], value):
            raise BadInput(f"{value!r} cannot be Slurm's --{name}: letters, digits and _ . + - : are understood")
    return chosen
