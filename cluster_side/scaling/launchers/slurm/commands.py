"""Slurm by its commands: sbatch, squeue and scancel, and sacct and sinfo where they are needed.

Clock policy: that of `subprocess_calls`.
Invariants: one command per call, however many jobs; an answer that is late, failed or not understood is `Unseen` or `Unclear`.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster_side.scaling.launchers.base import (
    Denied,
    EndCause,
    JobListing,
    Phase,
    Seen,
    SubmitAnswer,
    Submitted,
    Unclear,
    Unseen,
)
from cluster_side.scaling.launchers.slurm import output
from cluster_side.scaling.launchers.slurm.options import words
from cluster_side.scaling.launchers.slurm.refusals import cause_of, sentence
from cluster_side.scaling.launchers.slurm.subprocess_calls import CommandOutput, Question, ask

MOMENT = 0.3
"""Seconds to wait for squeue; it usually answers within 0.02 s."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One call of sbatch: `options` as made by `options.py`, the script, and how many jobs it makes."""

    options: Mapping[str, str | None]
    script: str
    count: int


class Commands:
    """Slurm's commands, for the jobs of these names on these clusters (none: this one)."""

    def __init__(self, names: Sequence[str], clusters: Sequence[str], patience: float) -> None:
        self._patience = patience
        where = [f"--clusters={','.join(clusters)}"] if clusters else []
        self._squeue = [
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            f"--user={os.getuid()}",
            f"--name={','.join(names)}",
            f"--Format={output.SQUEUE_FIELDS}",
            *where,
        ]
        self._where = where
        self._asked: Question | None = None
        self._leaving: list[Question] = []

    def submit(self, submission: Submission) -> SubmitAnswer:
        """Run sbatch once."""
        said = ask(("sbatch", "--parsable", *words(submission.options)), self._patience, submission.script)
        if said.code is None:
            return Unclear(f"sbatch did not come back within {self._patience:g} s")
        if said.code == 0:
            try:
                return Submitted(output.submitted(said.out, submission.count))
            except output.NotUnderstood as error:
                return Unclear(str(error))
        cause = cause_of(said.said)
        return Unclear(sentence(said.said)) if cause is None else Denied(cause, sentence(said.said))

    def refusal(self, submission: Submission) -> str:
        """Return why Slurm would refuse this, or nothing; submits nothing."""
        said = ask(("sbatch", "--test-only", *words(submission.options)), self._patience, submission.script)
        if said.code == 0:
            return ""
        return sentence(said.said) if said.code else f"sbatch --test-only did not come back within {self._patience:g} s"

    def listing(self) -> JobListing | None:
        """Run squeue, or continue to wait for it; None: no answer yet."""
        self._asked = self._asked or Question(self._squeue, self._patience)
        if (said := self._asked.answer(MOMENT)) is None:
            return None
        self._asked = None
        return _listing(said, self._patience)

    def ends(self, jobs: Sequence[str]) -> Mapping[str, tuple[Phase, EndCause | None]]:
        """Return how jobs ended, from accounting; empty where there is none, or it does not answer at once."""
        if shutil.which("sacct") is None:
            return {}
        plain = ",".join(sorted({job.partition(";")[0] for job in jobs}))
        options = ("--allocations", "--noheader", "--parsable2", f"--format={output.SACCT_FIELDS}", f"--jobs={plain}")
        said = ask(("sacct", *options, *self._where), min(2.0, self._patience))
        try:
            return output.accounts(said.out) if said.code == 0 else {}
        except output.NotUnderstood:
            return {}

    def cancel(self, jobs: Sequence[str]) -> None:
        """Start one scancel per cluster, and do not wait for it."""
        self._leaving = [question for question in self._leaving if question.answer() is None]
        clusters: dict[str, list[str]] = {}
        for job in jobs:
            name, _, cluster = job.partition(";")
            clusters.setdefault(cluster, []).append(name)
        for cluster, names in clusters.items():
            where = (f"--clusters={cluster}",) if cluster else ()
            self._leaving.append(Question(("scancel", *where, *names), self._patience))

    def nodes(self) -> tuple[output.NodeKind, ...]:
        """Return the kinds of nodes of this cluster; none if Slurm does not say."""
        said = ask(("sinfo", "--exact", "--noheader", f"--format={output.SINFO_FIELDS}"), self._patience)
        try:
            return output.nodes(said.out) if said.code == 0 else ()
        except output.NotUnderstood:
            return ()

    def array_bound(self) -> int | None:
        """Return MaxArraySize, or None if Slurm does not say."""
        said = ask(("scontrol", "show", "config"), self._patience)
        return output.array_bound(said.out) if said.code == 0 else None


def _listing(said: CommandOutput, patience: float) -> JobListing:
    if said.code is None:
        return Unseen(f"squeue did not come back within {patience:g} s")
    if said.code != 0:
        return Unseen(f"squeue failed: {sentence(said.said)}")
    try:
        return Seen(output.jobs(said.out))
    except output.NotUnderstood as error:
        return Unseen(str(error))
