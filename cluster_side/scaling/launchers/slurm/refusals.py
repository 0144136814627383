"""Why Slurm refused a job: its messages, sorted into causes, with a sentence that says what to do. Pure.

Theory: the first question is whether the job may be in the queue nevertheless. If the controller answered "no", it is not; if the
connection broke after the request was sent, it may be, and jobs with the token must be looked for.
Source: slurm_strerror in src/common/slurm_errno.c of Slurm 22.05 to 25.11, and what the commands print around it.
"""

import re

from cluster_side.scaling.launchers.base import EndCause

_UNCLEAR = re.compile(
    r"timed out|Zero Bytes were transmitted|Message receive failure|Unexpected message received|Connection reset|Broken pipe"
    r"|Header lengths are longer|Insane message length",
    re.IGNORECASE,
)
_SAID: tuple[tuple[str, EndCause, str], ...] = (
    (
        r"Unable to contact slurm controller|Connection refused|controller in standby|can't be reached now|talking to database"
        r"|establish a configuration source|Slurm (daemon|cluster) .*not (running|responding)|Unable to resolve|in standby mode",
        EndCause.DOWN,
        "Slurm's controller does not answer (`scontrol ping`)",
    ),
    (
        r"authentication error|Munge (encode|decode)|auth plugin|Invalid authentication",
        EndCause.DOWN,
        "Slurm cannot tell who we are: ask for munge on this host",
    ),
    (
        r"QOS policy|accounting/QOS|MaxSubmit|AssocMax|AssocGrp|QOSMax|QOSGrp|submit limit|job limit",
        EndCause.LIMIT,
        "a limit of this account or QOS is reached (`sacctmgr show assoc user=$USER`)",
    ),
    (
        r"temporarily unable|Resource temporarily|MaxJobCount|reached maximum|too many",
        EndCause.LIMIT,
        "Slurm's queue is full for the moment",
    ),
    (r"Invalid job array", EndCause.LIMIT, "the array is larger than this Slurm takes (MaxArraySize)"),
    (r"partition", EndCause.RULES, "see slurm.partitions in the site file; `sinfo -s` lists the partitions that there are"),
    (
        r"reservation",
        EndCause.RULES,
        "see slurm.reservation in the site file; `scontrol show reservation` lists those that are valid now",
    ),
    (r"account", EndCause.RULES, "see slurm.account in the site file; `sacctmgr show assoc user=$USER` lists yours"),
    (r"qos", EndCause.RULES, "see slurm.qos in the site file; `sacctmgr show qos` lists them"),
    (
        r"feature|constraint",
        EndCause.RULES,
        "see slurm.constraint in the site file; `sinfo -o %f` lists the features of the nodes",
    ),
    (r"gres|generic resource", EndCause.RULES, "see slurm.gpus in the site file; `sinfo -o %G` lists what the nodes have"),
    (
        r"node configuration|memory|CPU count|Node count|More processors|node count",
        EndCause.RULES,
        "no node is like that; see job: in the pipeline file; `sinfo -o '%R %c %m %G'` lists the nodes",
    ),
    (r"time ?limit|--time", EndCause.RULES, "the walltime is longer than the partition allows; see job: in the pipeline file"),
    (r"node name", EndCause.RULES, "a node that was to be avoided is no longer there"),
    (r"permission|not permitted|Access", EndCause.RULES, "this account may not do that here; ask those who run the cluster"),
)
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), cause, advice) for pattern, cause, advice in _SAID)
_DECIDED = re.compile(r"submission failed|allocation failure|^sbatch: (error|fatal): ", re.MULTILINE)


def cause_of(said: str) -> EndCause | None:
    """Return why a submission failed, or None if it may have been accepted nevertheless."""
    if _UNCLEAR.search(said):
        return None
    for pattern, cause, _ in _PATTERNS:
        if pattern.search(said):
            return cause
    return EndCause.RULES if _DECIDED.search(said) else None


def sentence(said: str) -> str:
    """Return the last line of Slurm's own message, and what to do."""
    words = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip() for line in said.strip().splitlines()]
    own = re.sub(r"^(Batch job submission failed|allocation failure): ", "", words[-1] if words else "it said nothing")[:300]
    advice = next((advice for pattern, _, advice in _PATTERNS if pattern.search(said)), "")
    return f"Slurm says: {own}" + (f"; {advice}" if advice else "")
