"""The `slurm:` section of a site file: where jobs may run, and with which options they are submitted.

Every name is matched against a pattern here, and once more when it becomes an argument of a command.
"""

import pathlib
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from beamtide.config.section import Name, Section

SlurmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,63}$")]
"""A name that Slurm knows: it becomes one argument of a command and is never read by a shell."""
SlurmFeatures = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:&|*()\[\],+=-]{1,200}$")]


class Elsewhere(Section):
    """Another cluster under the same Slurm, tried when this one refuses."""

    cluster: SlurmName
    """Its name, as `sacctmgr show clusters` has it."""
    partitions: tuple[SlurmName, ...] = ()
    """Partitions there (default: its own default)."""
    account: SlurmName | None = None
    """The account there (default: the same as here)."""


class Slurm(Section):
    """How jobs are submitted to Slurm: the reservation is tried first, then the partitions, then `elsewhere`."""

    partitions: tuple[SlurmName, ...] = ()
    """Slurm starts a job in whichever of them is free first (default: Slurm's own default)."""
    gpu_partitions: tuple[SlurmName, ...] = ()
    """For jobs with GPUs (default: `partitions`)."""
    reservation: SlurmName | None = None
    """The reservation of this beamtime; when it is over, jobs go to `partitions`."""
    elsewhere: tuple[Elsewhere, ...] = ()
    cluster: SlurmName | None = None
    """The name of this cluster; needed with `elsewhere`, and where Slurm has no default cluster."""
    account: SlurmName | None = None
    qos: SlurmName | None = None
    constraint: SlurmFeatures | None = None
    """Features that a node must have, as for `sbatch --constraint`."""
    gpu_constraint: SlurmFeatures | None = None
    """The same for jobs with GPUs (default: `constraint`)."""
    gpus: SlurmName | None = "gpu"
    """How this site's Slurm names GPUs (`gpu`, or `gpu:a100`); null where they are chosen by gpu_constraint alone."""
    mpi: SlurmName = "pmix"
    """How ranks of an MPI job find each other; `srun --mpi=list` shows what this Slurm offers."""
    whole_nodes: bool = False
    """Each job gets its nodes for itself (`--exclusive`)."""
    cpus_per_node: int = Field(default=0, ge=0)
    """CPUs of a node that jobs share, for the node-hour budget (0: a job counts as whole nodes)."""
    logs: pathlib.Path | None = None
    """Folder for the logs of jobs, the same on all nodes (default: `logs` in the state folder)."""
    templates: pathlib.Path | None = None
    """Folder with own templates of batch scripts; one that is missing there is taken from sbatch_templates."""
    beamtide: tuple[str, ...] = ()
    """The command that starts Beamtide on a node (default: the same as here)."""
    backend: Literal["commands", "pyslurm"] = "commands"
    """"pyslurm" needs the package made for exactly this Slurm version; where it does not load, the commands are used."""
    patience: float = Field(default=10.0, gt=0, le=120)
    """How long one Slurm command may take, in seconds."""
    look_every: float = Field(default=5.0, ge=5, le=60)
    """Seconds between two calls of squeue; many sites ask for five or more."""

    @model_validator(mode="after")
    def _one_name_per_cluster(self) -> Self:
        if self.elsewhere and self.cluster is None:
            raise ValueError("with `elsewhere`, `cluster` must be the name of this cluster (`scontrol show config`)")
        return self


def _not_slurm(found: dict[str, Any]) -> dict[str, Any]:
    if "slurm" in found:
        raise ValueError("settings of slurm stand in the section slurm of the site file; move them there")
    return found


OtherLaunchers = Annotated[dict[Name, dict[str, Any]], AfterValidator(_not_slurm)]
"""Name -> settings, looked at by the launcher itself."""
